// Small helpers: build nodes, patch what is there so that focus and hover stay, write numbers and times.

const SVG = 'http://www.w3.org/2000/svg';

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const $ = (id) => document.getElementById(id);

/** Makes the children of `parent` equal to `wanted`, keeping nodes of the same kind and `data-key`. */
export function patch(parent, wanted) {
  const nodes = [wanted].flat(9).filter(Boolean).map((node) => (typeof node === 'string' ? new Text(node) : node));
  const keyed = new Map([...parent.children].filter((c) => c.dataset.key).map((c) => [c.dataset.key, c]));
  nodes.forEach((node, at) => {
    let there = parent.childNodes[at];
    const key = node.dataset?.key;
    const moved = key && there !== keyed.get(key) ? keyed.get(key) : undefined;
    if (moved) { parent.insertBefore(moved, there ?? null); there = moved; }
    if (!there) parent.append(node);
    else if (!alike(there, node)) parent.replaceChild(node, there);
    else if (node.nodeType === Node.TEXT_NODE) { if (there.data !== node.data) there.data = node.data; }
    else morph(there, node);
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.dataset?.key === b.dataset?.key;

function morph(there, node) {
  for (const { name } of [...there.attributes]) if (!node.hasAttribute(name)) there.removeAttribute(name);
  for (const { name, value } of node.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  patch(there, [...node.childNodes]);
}

const ICONS = {
  good: 'M3 8.5l3.2 3.2L13 5', bad: 'M4 4l8 8M12 4l-8 8', warn: 'M8 2.8v6M8 12.6v.3',
  up: 'M8 13V3M4 7l4-4 4 4', down: 'M8 3v10M4 9l4 4 4-4', hold: 'M5 3.5v9M11 3.5v9', change: 'M3 8h10M9 4l4 4-4 4',
};

export const icon = (name) =>
  s('svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true', fill: 'none', stroke: 'currentColor', 'stroke-width': 2.2, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' },
    s('path', { d: ICONS[name] }));

export const pill = (kind, text, sign) => h('span', { class: `pill ${kind}` }, sign ? icon(sign) : null, text);

/** A number short enough for a tile; a dash for what is not known. */
export function number(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 10000) return `${(value / 1000).toFixed(value >= 100000 ? 0 : 1)}k`;
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value < 0.05 ? '0' : value.toFixed(1);
}

export function latency(ms) {
  if (ms === null || ms === undefined) return '–';
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms >= 10 ? Math.round(ms) : ms.toFixed(1)} ms`;
}

export function lasting(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
export const when = (at) => h('time', { datetime: new Date(at * 1000).toISOString() }, clock(at));
