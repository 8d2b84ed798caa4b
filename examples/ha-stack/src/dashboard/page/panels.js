// What is shown of one frame, apart from the curve. Each function returns nodes; nothing here keeps anything.

import { h, icon, latency, lasting, number, pill, s as sv, when } from './dom.js';

const short = (instance) => instance.split('.').slice(0, 2).join('.');
const STATES = { ready: ['good', 'good'], warming: ['warn', 'warn'], trial: ['warn', 'warn'], draining: ['warn', 'down'], ejected: ['bad', 'bad'] };
const word = (replica) => replica.state.split(':')[0];
const badge = (replica) => pill(...((state) => [state[0], word(replica), state[1]])(STATES[word(replica)] ?? ['warn', 'warn']));
const usable = (view) => view.replicas.filter((replica) => replica.usable).length;

const LEVELS = { good: ['good', 'good'], growing: ['accent', 'up'], warn: ['warn', 'warn'], bad: ['bad', 'bad'] };

export function verdict(frame) {
  const [kind, sign] = LEVELS[frame.verdict.level];
  const newest = frame.view.decisions.at(-1);
  const scaler = frame.view.hold ? `Scaler paused: ${frame.view.hold}.` : newest ? `Scaler: ${newest.sentence}` : null;
  return [
    h('div', { class: `sign ${kind}` }, icon(sign)),
    h('div', {}, h('h1', {}, frame.verdict.title), h('p', {}, frame.verdict.text), scaler ? h('p', {}, scaler) : null),
  ];
}

export function tiles(frame) {
  const { view, sample } = frame;
  const total = (field) => view.gateways.reduce((sum, gateway) => sum + gateway[field], 0);
  const up = view.hosts.filter((host) => host.up).length;
  const inUse = usable(view);
  const leaders = [...new Set(view.hosts.flatMap((host) => host.leads.map((what) => `${host.name} leads ${what}`)))];
  const tile = (name, value, unit, sub, kind) =>
    h('div', { class: `tile ${kind ?? ''}` }, h('div', { class: 'name' }, name),
      h('div', { class: 'value' }, value, unit ? h('small', {}, ` ${unit}`) : null), h('div', { class: 'sub', title: sub }, sub));
  const split = latency(sample.p95_ms).split(' ');
  return [
    tile('Requests', number(sample.rate), '/s', `${number(total('requests_total'))} since the start`),
    tile('In flight', number(sample.in_flight), '', sample.waiting ? `${sample.waiting} wait for a replica` : view.target ? `${view.target} each is the target` : 'none waits', sample.waiting ? 'warn' : ''),
    tile('Latency, p95', split[0], split[1], `p50 ${latency(sample.p50_ms)} · p99 ${latency(sample.p99_ms)}`),
    tile('Errors', number(sample.errors), '/s', `${number(total('errors_total'))} of 5xx · ${number(total('retries_total'))} retries`, sample.errors > 0 ? 'bad' : ''),
    tile('Replicas', `${inUse}`, view.wanted === null ? 'in use' : `of ${view.wanted}`, view.hold ? 'the scaler is paused' : 'the scaler decides', view.wanted !== null && inUse < view.wanted ? 'warn' : ''),
    tile('Hosts', `${up}`, `of ${view.hosts.length}`, leaders.join(', ') || 'none leads anything', up < view.hosts.length ? 'bad' : ''),
  ];
}

/** Changes, and of each run of holds the newest with the number of those before it. */
function grouped(list) {
  const groups = [];
  for (const decided of [...list].reverse()) {
    const hold = decided.to === decided.from;
    if (hold && groups.at(-1)?.hold) groups.at(-1).more += 1;
    else groups.push({ decided, hold, more: 0 });
  }
  return groups.slice(0, 40);
}

export function decisions(view) {
  if (!view.decisions.length) return [h('li', { class: 'empty' }, 'None so far.')];
  return grouped(view.decisions).map(({ decided, hold, more }) => {
    const kind = hold ? 'hold' : decided.to > decided.from ? 'up' : 'down';
    const text = decided.sentence.replace(/^(\d+ -> \d+|hold \d+): /, '');
    const label = hold ? `hold ${decided.from}` : `${decided.from} → ${decided.to}`;
    return h('li', { class: hold ? 'quiet' : '', 'data-key': `${decided.at}` }, when(decided.at),
      h('div', { class: 'line' }, pill(kind === 'up' ? 'accent' : kind === 'down' ? 'good' : '', label, kind), more ? h('span', { class: 'dim' }, `and ${more} like it before`) : null),
      h('div', { class: 'said' }, text));
  });
}

export function timeline(frame) {
  const list = frame.timeline.slice(-60).reverse();
  if (!list.length) return [h('li', { class: 'empty' }, 'Nothing has happened.')];
  const kinds = { fault: ['bad', 'bad'], recovery: ['good', 'good'], change: ['soft', 'change'] };
  return list.map((entry) => {
    const [kind, sign] = kinds[entry.kind];
    return h('li', { class: entry.kind === 'change' ? 'quiet' : '', 'data-key': `${entry.at}${entry.text}` },
      h('span', { class: `dot ${kind}`, title: entry.kind }, icon(sign)),
      h('div', {}, h('div', {}, entry.text), when(entry.at)));
  });
}

function tile(replica, work, target) {
  const kind = (STATES[word(replica)] ?? ['warn'])[0];
  const share = target ? Math.min(100, (100 * replica.in_flight) / (2 * target)) : 0;
  const retry = replica.retry_in_seconds;
  const why = replica.usable ? null : h('div', { class: 'why' }, [replica.why, retry ? `tried again in ${lasting(retry)}` : null].filter(Boolean).join(' · '));
  return h('div', { class: `replica ${kind}`, 'data-key': replica.instance },
    h('div', { class: 'line' }, h('b', { title: replica.instance }, short(replica.instance)), badge(replica)),
    h('div', { class: 'work' }, h('span', {}, `${replica.in_flight} in flight`), h('span', {}, `${number(work?.rate ?? 0)}/s`), h('span', {}, latency(replica.latency_ms))),
    why,
    target ? h('div', { class: `load ${replica.in_flight > target ? 'over' : ''}`, title: `${replica.in_flight} in flight; the target is ${target}` }, bar(share)) : null);
}

/** Drawn, not styled: the page's policy allows no style attributes. */
const bar = (percent) => sv('svg', { width: '100%', height: 4, 'aria-hidden': 'true' }, sv('rect', { width: `${percent}%`, height: 4, rx: 2 }));

export function hosts(frame, unlocked) {
  const { view } = frame;
  const work = new Map(frame.work.map((entry) => [entry.instance, entry]));
  const known = view.hosts.map((host) => host.name);
  const strangers = [...new Set(view.replicas.map((replica) => replica.host).filter((host) => !known.includes(host)))];
  const all = [...view.hosts, ...strangers.map((name) => ({ name, address: '', up: true, leads: [], drained: false }))];
  return all.map((host) => {
    const here = view.replicas.filter((replica) => replica.host === host.name);
    const state = !host.up ? pill('bad', 'no power', 'bad') : host.drained ? pill('warn', 'drained', 'down') : pill('good', 'up', 'good');
    const verb = host.drained ? 'Use again' : 'Drain';
    return h('article', { class: `host ${host.up ? '' : 'down'}`, 'data-key': host.name, 'aria-label': `Host ${host.name}` },
      h('header', {}, h('b', {}, host.name || 'unknown'), state, host.leads.map((what) => pill('accent', `leads ${what}`)),
        unlocked && host.up ? h('button', { class: 'ghost', type: 'button', 'data-action': 'drain', 'data-host': host.name, 'data-on': String(!host.drained) }, verb) : null),
      host.address ? h('div', { class: 'at' }, host.address) : null,
      here.length ? here.map((replica) => tile(replica, work.get(replica.instance), view.target)) : h('div', { class: 'nobody' }, host.up ? 'no replica here' : 'nothing runs here'));
  });
}

const table = (columns, rows) => [
  h('thead', {}, h('tr', {}, columns.map(([name, kind]) => h('th', { scope: 'col', class: kind }, name)))),
  h('tbody', {}, rows.map(([key, cells]) => h('tr', { 'data-key': key }, cells.map((cell, at) => {
    const wide = at === cells.length - 1 && cells.length < columns.length;
    return h('td', { class: wide ? 'wide' : columns[at][1], colspan: wide ? columns.length - at : null, 'data-label': columns[at][0] }, cell);
  })))),
];

export function endpoints(frame) {
  const work = new Map(frame.work.map((entry) => [entry.instance, entry]));
  const rows = frame.view.replicas.map((replica) => {
    const does = work.get(replica.instance);
    const retry = replica.retry_in_seconds ? `, tried again in ${lasting(replica.retry_in_seconds)}` : '';
    const why = replica.usable ? `for ${lasting(replica.for_seconds)}` : `${replica.why}, for ${lasting(replica.for_seconds)}${retry}`;
    return [replica.instance, [
      h('div', {}, h('div', { title: replica.instance }, short(replica.instance)), h('div', { class: 'dim' }, `${replica.host} · ${replica.address}`)),
      h('div', {}, badge(replica), h('div', { class: 'dim' }, why)),
      number(replica.in_flight), `${number(does?.rate ?? 0)}/s`, latency(replica.latency_ms),
      h('div', {}, number(replica.failures), h('div', { class: 'dim' }, `of ${number(replica.requests)}`)),
    ]];
  });
  if (!rows.length) return [h('tbody', {}, h('tr', {}, h('td', { class: 'empty' }, 'No replica is known.')))];
  return table([['Replica', ''], ['State', 'wide'], ['In flight', 'num'], ['Rate', 'num'], ['Latency', 'num'], ['Failed', 'num']], rows);
}

export function services(view) {
  const rows = view.services.map((one) => [one.service, [
    h('div', {}, h('div', {}, one.service), h('div', { class: 'dim' }, one.rules.length ? one.rules.join(' or ') : 'everything else')),
    h('div', { class: one.usable ? '' : 'dim' }, `${one.usable} of ${one.replicas}`),
    `${number(one.rate)}/s`,
    h('div', {}, number(one.in_flight), one.waiting ? h('div', { class: 'dim' }, `${one.waiting} wait`) : null),
    latency(one.p95_ms), number(one.errors_total),
  ]]);
  return table([['Service', ''], ['Replicas', 'num'], ['Rate', 'num'], ['In flight', 'num'], ['p95', 'num'], ['5xx', 'num']], rows);
}

export function gateways(view) {
  const rows = view.gateways.map((gateway) => {
    const name = h('div', {}, h('div', {}, gateway.name), h('div', { class: 'dim' }, gateway.address));
    if (gateway.error) return [gateway.name, [name, h('div', {}, pill('bad', 'silent', 'bad'), ' ', h('span', { class: 'dim' }, gateway.error))]];
    return [gateway.name, [name, `${number(gateway.rate)}/s`,
      h('div', {}, number(gateway.in_flight), gateway.waiting ? h('div', { class: 'dim' }, `${gateway.waiting} wait`) : null),
      h('div', {}, latency(gateway.p50_ms === null ? null : gateway.p95_ms), h('div', { class: 'dim' }, `p50 ${latency(gateway.p50_ms)}`)),
      h('div', {}, number(gateway.errors_total), h('div', { class: 'dim' }, `${number(gateway.rejected_total)} refused`)),
      number(gateway.retries_total)]];
  });
  return table([['Gateway', ''], ['Rate', 'num'], ['In flight', 'num'], ['p95', 'num'], ['5xx', 'num'], ['Retries', 'num']], rows);
}

export function backends(view) {
  return view.backends.map((backend) =>
    h('li', { 'data-key': backend.name }, h('span', { class: `dot ${backend.ok ? 'good' : 'bad'}`, title: backend.ok ? 'well' : 'not well' }, icon(backend.ok ? 'good' : 'bad')),
      h('b', {}, backend.name), h('div', { class: 'dim' }, backend.detail)));
}
