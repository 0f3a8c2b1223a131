// Lists what a page shows, and numbers it: window.wobElements[number - 1] is the element.
const OUTSIDE = ["reward-display", "sync-task-cover", "click-canvas"];
const INTERACTIVE = ["a", "button", "input", "option", "select", "textarea"];
const DECORATION = ["ui-resizable-handle", "ui-icon"];
const lines = [];
window.wobElements = [];

function shown(element) {
  if (element.tagName === "OPTION") return true;
  const box = element.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && getComputedStyle(element).visibility !== "hidden";
}

function ownText(element) {
  return Array.from(element.childNodes)
    .filter((node) => node.nodeType === Node.TEXT_NODE)
    .map((node) => node.data.trim()).filter((text) => text).join(" ");
}

function worthALine(element, tag, text, inQuery) {
  if (inQuery) return !element.children.length && !text && element.style.backgroundColor;
  if (text || INTERACTIVE.includes(tag)) return true;
  if (element.children.length || ["g", "svg", "hr", "br"].includes(tag)) return false;
  return !DECORATION.some((name) => element.classList.contains(name));
}

function describe(element, tag, text) {
  const facts = { tag, text };
  if (tag === "input") facts.type = element.type;
  if (tag === "input" && ["checkbox", "radio"].includes(element.type)) {
    facts.checked = element.checked;
  } else if ("value" in element && ["input", "textarea", "select"].includes(tag)) {
    facts.value = element.value;
  }
  if (tag === "option") facts.selected = element.selected;
  if (element.id) facts.id = element.id;
  const classes = element.getAttribute("class");
  if (classes) facts.class = classes;
  const color = element.getAttribute("fill") || element.style.backgroundColor;
  if (color) facts.color = color;
  if (element instanceof SVGElement) {
    const box = element.getBoundingClientRect();
    facts.at = [box.left, box.top].map(Math.round).join(",");
    facts.size = [box.width, box.height].map(Math.round).join("x");
  }
  if (document.activeElement === element) facts.focused = true;
  return facts;
}

function walk(element, inQuery) {
  const tag = element.tagName.toLowerCase();
  if (OUTSIDE.includes(element.id) || ["script", "style"].includes(tag) || !shown(element)) return;
  inQuery = inQuery || element.id === "query";
  const text = ownText(element);
  if (element !== document.body && worthALine(element, tag, text, inQuery)) {
    window.wobElements.push(element);
    lines.push(describe(element, tag, text));
  }
  for (const child of element.children) walk(child, inQuery);
}

walk(document.body, false);
return lines;
