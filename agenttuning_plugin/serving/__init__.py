"""Serve a trained model with vLLM or transformers, prompted and stopped as in training."""
