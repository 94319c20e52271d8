// Browsers start no worker from a page opened as a file: the search then runs in a hidden frame.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.worker = this;
      frame.srcdoc = `<script>
        postMessage = data => frameElement.worker.dispatchEvent(new MessageEvent("message", {data}));
      </script><script src="${url}"></script>`;
      this.started = new Promise((resolve) => (frame.onload = () => resolve(frame.contentWindow)));
      document.body.append(frame);
    }
    postMessage(data) {
      this.started.then((self) => self.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
