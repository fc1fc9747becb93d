// Creating and updating elements. All data is set as text: names in certificates are chosen by peers.

export function create(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Change a text only if it differs, so that a selection in it stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Reuse the children of an element for a list of items: create, update and remove as few as possible. */
export function updateList(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    if (!parent.children[index]) parent.append(make());
    update(parent.children[index], item, index);
  });
}

/** Say something to a screen reader, once. */
export function announce(text) {
  const region = document.getElementById("announcement");
  region.textContent = "";
  setTimeout(() => { region.textContent = text; }, 50);
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {  // an address that is not loopback, without TLS, has no clipboard interface
    return copySelection(text);
  }
}

function copySelection(text) {
  const before = document.activeElement;
  const area = create("textarea", { readonly: "", class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (before instanceof HTMLElement) before.focus();
  return isCopied;
}
