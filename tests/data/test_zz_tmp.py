def test_tiny(tiny_model_dir):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    t = AutoTokenizer.from_pretrained(tiny_model_dir)
    m = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert (
        t.chat_template and t.eos_token == "<|im_end|>" and t.model_max_length == 4096 and t.is_fast
    )
    assert t("a é🙂 x")["input_ids"] and t.decode(t("a é🙂 x")["input_ids"]) == "a é🙂 x"
    print(m.num_parameters(), len(t))
