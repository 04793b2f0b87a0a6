// Two faces, found and aligned, two directions, one angle: all of it in the browser.

import { SIZE, align, findFaces } from "./faces.js";

const ORT = "onnxruntime-web@1.30.0"; // the one place of its version; make_demo.py reads it here
const PLACES = ["ort/", `https://cdn.jsdelivr.net/npm/${ORT}/dist/`]; // beside the page (`make demo`), else from there
const LONGEST = 1600; // pixels: a larger photograph is reduced before it is searched
const MOST = 60; // faces to choose from
const HUB = [220, 212], RADIUS = 178, REACH = 128; // of the dial, in units of its viewBox

const $ = (selector, root = document) => root.querySelector(selector);
const main = $("main");
const slots = []; // of the first and the second face: {box, canvas, said, photo, found, radios, turn, direction, person}
let ort, network, facts, shown = 0; // shown: the angle at which the second ray stands

for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
start().catch((error) => fail(error.message));

async function start() {
  facts = await (await get("demo.json", "the list of drawn faces")).json();
  $("#dimensions").textContent = facts.dimensions;
  const [people, pairs] = [facts.people, facts.pairs].map((count) => count.toLocaleString("en"));
  $("#record").textContent = `It learnt from ${people} people, and on ${pairs} pairs of photographs of others it is ` +
    `right in ${(100 * facts.accuracy).toFixed(1)} %.`;
  drawScale(facts.threshold);
  for (const name of ["First face", "Second face"]) slots.push(addSlot(name, slots.length));
  if (typeof WebAssembly !== "object")
    throw new Error("This browser has no WebAssembly, which runs the network: take another.");
  network = await loadNetwork();
  for (const slot of slots) slot.box.disabled = false;
  for (const [number, slot] of slots.entries()) await slot.radios[number].onchange(); // one person, twice
  loadDetector().catch(() => {}); // ready for the first photograph, also offline; what fails is tried again then
}

async function get(address, what) {
  const answer = await fetch(address).catch(() => ({ ok: false, status: "no answer" }));
  if (answer.ok) return answer;
  throw new Error(`${address}, ${what}, could not be loaded (${answer.status}): run make demo, which makes it anew.`);
}

async function loadNetwork() {
  const bytes = await (await get("face.onnx", "the network")).arrayBuffer();
  const place = await loadOrt();
  ort.env.wasm.numThreads = 1; // more take headers that a plain file server does not send
  ort.env.wasm.wasmPaths = { wasm: `${place}ort-wasm-simd-threaded.wasm` };
  try {
    const session = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
    const [input, output] = [session.inputNames[0], session.outputNames[0]];
    const tensor = (pixels) => new ort.Tensor("float32", pixels, [1, 3, SIZE, SIZE]);
    return async (pixels) => (await session.run({ [input]: tensor(pixels) }))[output].data;
  } catch (error) {
    throw new Error(`onnxruntime-web cannot run face.onnx (${error.message}): run make demo, which makes it anew.`);
  }
}

async function loadOrt() {
  for (const folder of PLACES) {
    const place = new URL(folder, document.baseURI).href;
    ort = await import(`${place}ort.wasm.bundle.min.mjs`).catch(() => null);
    if (ort) return place;
  }
  throw new Error(`${ORT}, which runs the network, is neither in ort/ nor to be had from ${new URL(PLACES[1]).host}: ` +
    "run make demo, or go online.");
}

// The three networks that find faces, as faces.js calls them: run(name, pixels, shape) -> outputs.
function loadDetector() {
  loadDetector.ready ??= (async () => {
    const sessions = {};
    for (const name of ["pnet", "rnet", "onet"]) {
      const bytes = await (await get(`${name}.onnx`, "a part of the detector")).arrayBuffer();
      sessions[name] = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] })
        .catch(() => {
          throw new Error(`${name}.onnx is no part of the detector: run make demo, which makes it anew.`);
        });
    }
    return async (name, pixels, shape) => {
      const session = sessions[name];
      const outputs = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", pixels, shape) });
      return session.outputNames.map((output) => outputs[output]);
    };
  })().catch((error) => {
    loadDetector.ready = null;
    throw error;
  });
  return loadDetector.ready;
}

// A slot: its picture on a canvas, the drawn faces to choose from, and a place for one's own.

function addSlot(name, number) {
  const part = $("template").content.cloneNode(true);
  const box = $(".slot", part), file = $("input[type=file]", part);
  const slot = { box, canvas: $("canvas", part), said: $(".said", part), radios: [], turn: 0, number };
  Object.assign(slot, { photo: $(".photo", part), found: $(".found", part) });
  box.disabled = true; // until there is a network
  $("legend", part).textContent = name;
  for (const photo of facts.faces[0].keys())
    for (const [person, photographs] of facts.faces.entries()) {
      const what = `drawn person ${"ABCDEFGH"[person]}, photograph ${photo + 1}`;
      const label = $(".drawn", part).appendChild(document.createElement("label"));
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: `face-${number}` });
      label.append(radio, Object.assign(new Image(), { src: photographs[photo], alt: what }));
      radio.onchange = async () => {
        radio.checked = true;
        const answer = await get(photographs[photo], "a drawn face").catch((error) => say(slot, error.message));
        if (answer) await showDrawn(slot, await answer.blob(), what, person);
      };
      slot.radios[photo + person * photographs.length] = radio;
    }
  const own = async (blob) => blob && network && showOwn(slot, blob, blob.name);
  file.onchange = () => own(file.files[0]).finally(() => (file.value = "")); // so that it can be chosen again
  box.ondragover = () => box.classList.add("over");
  box.ondragleave = () => box.classList.remove("over");
  box.ondrop = (event) => (box.ondragleave(), own(event.dataTransfer.files[0]));
  main.append(part);
  return slot;
}

function say(slot, sentence) {
  slot.said.textContent = sentence;
}

// A picture into a slot: find, align, embed, compare. What is chosen later wins, whichever is ready first.

async function showDrawn(slot, blob, name, person) {
  const turn = ++slot.turn;
  const picture = await createImageBitmap(blob).catch(() => null);
  if (turn !== slot.turn) return;
  if (!picture) return say(slot, `${name} cannot be read: run make demo, which makes it anew.`);
  say(slot, "");
  slot.photo.hidden = slot.found.hidden = true;
  draw(slot.canvas, picture);
  await embed(slot, turn, name, person);
}

async function showOwn(slot, blob, name) {
  const turn = ++slot.turn;
  const picture = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" })
    .catch(() => null);
  if (turn !== slot.turn) return;
  if (!picture) return say(slot, `${name} is no picture that this browser can read: choose a PNG, JPEG or WebP.`);
  const { width, height } = picture;
  if (width === SIZE && height === SIZE) return takeWhole(slot, turn, picture, name, "Taken as an aligned face.");
  say(slot, "Looking for faces ...");
  const pixels = pixelsOf(picture);
  const found = await loadDetector().then((run) => findFaces(pixels, run)).catch((error) => error);
  if (turn !== slot.turn) return;
  if (found instanceof Error) return takeWhole(slot, turn, picture, name, `No face was looked for: ${found.message}`);
  if (!found.length) return takeWhole(slot, turn, picture, name, "No face was found: those of 20 pixels and a " +
    `twentieth of the shorter side are. All ${width} × ${height} pixels, fitted to ${SIZE} × ${SIZE}.`);
  const reduced = pixels.width === width ? "" :
    ` ${width} × ${height} pixels were reduced to ${pixels.width} × ${pixels.height}.`;
  markFaces(slot, pixels, found, name);
  offerFaces(slot, turn, pixels, found.slice(0, MOST), name, reduced);
  await chooseFace(slot, turn, pixels, found, 0, name, reduced);
}

async function takeWhole(slot, turn, picture, name, sentence) {
  say(slot, sentence);
  slot.photo.hidden = slot.found.hidden = true;
  draw(slot.canvas, picture);
  await embed(slot, turn, name, null);
}

async function chooseFace(slot, turn, pixels, found, chosen, name, reduced) {
  const which = found.length > 1 ? `, face ${chosen + 1} of ${found.length}` : "";
  const many = `${found.length} faces were found: this is number ${chosen + 1}.`;
  say(slot, `${found.length > 1 ? many : "One face was found."} It was turned and scaled by its five points.${reduced}`);
  slot.canvas.getContext("2d", { willReadFrequently: true }).putImageData(align(pixels, found[chosen].points), 0, 0);
  await embed(slot, turn, name + which, null);
}

async function embed(slot, turn, name, person) {
  slot.canvas.setAttribute("aria-label", name);
  if (person === null) for (const radio of slot.radios) radio.checked = false;
  const picked = (slot.picked = {}); // of several faces of one photograph too the one chosen last wins
  const direction = await network(read(slot.canvas));
  if (turn !== slot.turn || picked !== slot.picked) return;
  Object.assign(slot, { direction, person });
  compare();
}

// The pixels of a photograph, reduced where it is very large.
function pixelsOf(picture) {
  const scale = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// The photograph as it was searched, with a box and five points on each face.
function markFaces(slot, pixels, found, name) {
  const { photo } = slot, line = Math.max(pixels.width, pixels.height) / 150;
  [photo.width, photo.height] = [pixels.width, pixels.height];
  photo.setAttribute("aria-label", `${name}: faces: ${found.length}, with five points in each`);
  photo.hidden = false;
  const context = photo.getContext("2d");
  context.putImageData(pixels, 0, 0);
  for (const { box: [x1, y1, x2, y2], points } of found) {
    const size = Math.min(line, (x2 - x1) / 20);
    Object.assign(context, { strokeStyle: "#fff", fillStyle: "#fff", lineWidth: size });
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    for (const [x, y] of points) {
      context.beginPath();
      context.arc(x, y, 1.2 * size, 0, 7);
      Object.assign(context, { strokeStyle: "#000", lineWidth: size / 2 });
      context.stroke();
      context.fill();
    }
  }
}

// Of several faces each as a thumbnail to choose, the largest first.
function offerFaces(slot, turn, pixels, found, name, reduced) {
  slot.found.hidden = found.length < 2;
  slot.found.replaceChildren();
  if (found.length < 2) return;
  for (const [chosen, { points }] of found.entries()) {
    const label = slot.found.appendChild(document.createElement("label"));
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: `found-${slot.number}` });
    const face = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
    face.getContext("2d").putImageData(align(pixels, points), 0, 0);
    radio.setAttribute("aria-label", `face ${chosen + 1} of ${found.length} in ${name}`);
    radio.checked = chosen === 0;
    radio.onchange = () => chooseFace(slot, turn, pixels, found, chosen, name, reduced);
    label.append(radio, face);
  }
}

// As arcface_edu.data.images.fit: undistorted, centred on black.
function draw(canvas, picture) {
  const scale = SIZE / Math.max(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, SIZE, SIZE);
  context.drawImage(picture, (SIZE - width) >> 1, (SIZE - height) >> 1, width, height);
}

// A canvas's pixels as the network takes them: (3, 112, 112), RGB, (x - 127.5) / 127.5.
function read(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIZE, SIZE); // R G B A, R G B A ...
  const area = SIZE * SIZE;
  return Float32Array.from({ length: 3 * area }, (_, i) => (data[4 * (i % area) + Math.floor(i / area)] - 127.5) / 127.5);
}

function degreesBetween(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  return (Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI;
}

function compare() {
  const [first, second] = slots;
  if (!first.direction || !second.direction) return;
  const angle = degreesBetween(first.direction, second.direction);
  const one = angle < facts.threshold;
  const drawn = first.person !== null && second.person !== null;
  const right = drawn && one === (first.person === second.person);
  const text = `${one ? "Below" : "Past"} the threshold of ${facts.threshold}°: the network takes them for ` +
    `${one ? "one person" : "two people"}.${drawn ? (right ? " It is right." : " It is wrong.") : ""}`;
  $("#angle").textContent = `${angle.toFixed(1)}°`;
  $("#verdict").textContent = text;
  $(".dial svg").setAttribute("aria-label", `A dial from 0 to 180 degrees. It stands at ${angle.toFixed(1)}. ${text}`);
  $("#wedge").dataset.side = one ? "same" : "different";
  for (const [number, slot] of slots.entries()) $(`#end-${number} image`).setAttribute("href", slot.canvas.toDataURL());
  main.dataset.state = "done";
  turnTo(angle);
}

function fail(sentence) {
  main.dataset.state = "failed";
  $("#verdict").textContent = sentence;
}

// The dial. 0° lies to the right, as in mathematics.

function at(degrees, radius) {
  const theta = (degrees * Math.PI) / 180;
  return [HUB[0] + radius * Math.cos(theta), HUB[1] - radius * Math.sin(theta)];
}

function svg(name, attributes, text = "") {
  const node = $("#scale").appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
}

function drawScale(threshold) {
  const arc = (from, to) => `M ${at(from, RADIUS)} A ${RADIUS} ${RADIUS} 0 0 0 ${at(to, RADIUS)}`;
  svg("path", { class: "band same", d: arc(0, threshold) });
  svg("path", { class: "band different", d: arc(threshold, 180) });
  const line = (degrees, inner, outer, kind) => {
    const [[x1, y1], [x2, y2]] = [at(degrees, inner), at(degrees, outer)];
    svg("line", { class: kind, x1, y1, x2, y2 });
  };
  const label = (degrees, text, kind) => {
    const [x, y] = at(degrees, RADIUS + 13);
    const anchor = Math.abs(degrees - 90) < 5 ? "middle" : degrees < 90 ? "start" : "end";
    svg("text", { class: kind, x, y: y + (degrees % 180 ? 0 : 4), "text-anchor": anchor }, text);
  };
  for (let degrees = 10; degrees < 180; degrees += 10) line(degrees, RADIUS - 6.5, RADIUS + 6.5, "tick");
  for (const degrees of [0, 45, 90, 135, 180]) if (Math.abs(degrees - threshold) > 12) label(degrees, `${degrees}°`, "");
  line(threshold, 40, RADIUS + 10, "threshold");
  label(threshold, `threshold ${threshold}°`, "limit");
}

function place(angle) {
  shown = angle;
  for (const [number, degrees] of [0, angle].entries()) {
    const [x, y] = at(degrees, REACH);
    $(`#ray-${number}`).setAttribute("x2", x);
    $(`#ray-${number}`).setAttribute("y2", y);
    $(`#end-${number}`).setAttribute("transform", `translate(${x} ${y})`);
  }
  $("#wedge").setAttribute("d", `M ${HUB} L ${at(0, REACH)} A ${REACH} ${REACH} 0 0 0 ${at(angle, REACH)} Z`);
}

function turnTo(angle) {
  const from = shown, began = performance.now();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const target = (turnTo.latest = {});
  const frame = (now) => {
    if (target !== turnTo.latest) return; // another turn has begun
    const share = still ? 1 : Math.min(1, (now - began) / 500);
    place(from + (angle - from) * (1 - (1 - share) ** 3));
    if (share < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
