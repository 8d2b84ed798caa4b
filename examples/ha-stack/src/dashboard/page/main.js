// Connects, keeps the samples, and redraws with each frame.

import { $, h, patch, pill } from './dom.js';
import { Controls } from './controls.js';
import { Curve } from './curve.js';
import * as panels from './panels.js';

const KEPT = 900;
const STALE = 6000;

let samples = [], frame = null, heard = 0;
const curve = new Curve($('curve'), $('legend'));
const controls = new Controls(redraw);

function add(next) {
  frame = next;
  if (next.sample.at > (samples.at(-1)?.at ?? 0)) samples.push(next.sample);
  if (samples.length > KEPT) samples.splice(0, samples.length - KEPT);
}

function redraw() {
  if (!frame) return;
  const { view } = frame;
  document.title = `${['warn', 'bad'].includes(frame.verdict.level) ? '⚠ ' : ''}${view.service} · ha-stack`;
  patch($('where'), [h('b', {}, view.service), pill('', view.platform), view.site ? h('a', { href: view.site, rel: 'noreferrer' }, view.site) : null]);
  patch($('verdict'), panels.verdict(frame));
  patch($('tiles'), panels.tiles(frame));
  patch($('decisions'), panels.decisions(view));
  patch($('hosts'), panels.hosts(frame, controls.unlocked));
  patch($('endpoints'), panels.endpoints(frame));
  $('services-card').hidden = !view.services.length;
  $('services-note').textContent = `${view.unrouted_total} requests were for none of them`;
  patch($('services'), panels.services(view));
  patch($('gateways'), panels.gateways(view));
  patch($('backends'), panels.backends(view));
  patch($('timeline'), panels.timeline(frame));
  patch($('footer'), [`Seen from ${view.seen_from}. ha-stack ${controls.rights?.version ?? ''}.`]);
  controls.show(view);
  curve.show(samples, frame);
}

function hear(state, text) {
  const live = $('live');
  if (live.dataset.state !== state) Object.assign(live, { textContent: text }).dataset.state = state;
  document.documentElement.classList.toggle('stale', state === 'off');
}

const stream = new EventSource('api/live');
stream.addEventListener('start', (event) => {
  const start = JSON.parse(event.data);
  samples = start.history;
  if (start.frame) add(start.frame);
  heard = Date.now();
  hear('on', 'live');
  controls.begin(start.rights);
});
stream.addEventListener('frame', (event) => {
  add(JSON.parse(event.data));
  heard = Date.now();
  hear('on', 'live');
  redraw();
});
stream.addEventListener('error', () => hear('off', 'reconnecting'));
setInterval(() => { if (heard && Date.now() - heard > STALE) hear('off', 'no news'); }, 1000);

for (const [box, name, set] of [['metric', 'metric', (v) => (curve.metric = v)], ['span', 'span', (v) => (curve.span = Number(v))]]) {
  $(box).addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    set(button.dataset[name]);
    for (const other of $(box).children) other.setAttribute('aria-pressed', String(other === button));
    redraw();
  });
}

const THEMES = ['auto', 'light', 'dark'];
function theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $('theme').textContent = name[0].toUpperCase() + name.slice(1);
  localStorage.setItem('ha-stack-theme', name);
}
theme(THEMES.includes(localStorage.getItem('ha-stack-theme')) ? localStorage.getItem('ha-stack-theme') : 'auto');
$('theme').addEventListener('click', () => theme(THEMES[(THEMES.indexOf(localStorage.getItem('ha-stack-theme')) + 1) % 3]));
