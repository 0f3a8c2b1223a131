// Search in pages opened from the file system: browsers refuse workers there, so the search
// worker's script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.tell(this, data);
      const script = inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.ready = true;
        this.waiting.forEach((data) => this.tell(inside, data));
      };
      inside.document.body.append(script);
    }

    tell(target, data) {
      const event = new MessageEvent("message", { data });
      if (target === this && this.onmessage) this.onmessage(event);
      target.dispatchEvent(event);
    }

    postMessage(data) {
      if (this.ready) this.tell(this.frame.contentWindow, data);
      else this.waiting.push(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
