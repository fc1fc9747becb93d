// The connection to the events of the server: it is opened again after each loss.

const SILENCE = 5000; // milliseconds without an event after which the connection counts as lost
const PAUSE = 1000;

/** Call `handlers[name]` with the data of each event, and `onState` with "live" or "lost". */
export function listen(url, handlers, onState) {
  let source = null;
  let timer = 0;

  function watch() {
    clearTimeout(timer);
    timer = setTimeout(lose, SILENCE);
  }

  function lose() {
    onState("lost");
    source.close();
    clearTimeout(timer);
    timer = setTimeout(open, PAUSE);
  }

  function open() {
    source = new EventSource(url);
    source.addEventListener("error", lose);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        watch();
        onState("live");
        handle(JSON.parse(event.data));
      });
    }
    watch();
  }

  open();
  // A page that goes into the browser's cache keeps no stream open.
  addEventListener("pagehide", () => { clearTimeout(timer); source.close(); });
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
}
