// Finds the faces of a picture and brings each to 112 x 112, by the arithmetic of arcface_edu/data/alignment: MTCNN in
// three networks (pnet.onnx, rnet.onnx, onet.onnx), then the similarity onto the template and the warp in integers.
// A picture is an ImageData; points are [x, y] in its pixels: eyes, nose, mouth's corners, the viewer's left first.

export const SIZE = 112;
const TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];
const SUBPIXELS = 32, FINER = 32; // positions between two pixels; a finer grid to round on before
const SHRINK = 0.709, WINDOW = 12, STRIDE = 2, SMALLEST = 20, THRESHOLDS = [0.6, 0.7, 0.7]; // as in detector.py
const GREY = 127.5; // outside of the picture, for the networks

const single = Math.fround;
const rint = (x) => { // halves to the even number, as NumPy and PyTorch round
  const down = Math.floor(x), rest = x - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
};

// run(name, pixels, shape) resolves to the outputs of a network, in its order.  -> [{box, points}], the largest first
export async function findFaces(picture, run) {
  const proposed = await propose(picture, run);
  const likely = await refine("rnet", picture, proposed, 24, THRESHOLDS[1], 0.7, run);
  const faces = await refine("onet", picture, likely, 48, THRESHOLDS[2], 0.3, run);
  const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  return faces.sort((a, b) => area(b) - area(a));
}

async function propose({ data, width, height }, run) {
  const shorter = Math.min(width, height), found = [];
  let face = Math.max(SMALLEST, shorter / 10);
  while (face * SHRINK >= Math.max(SMALLEST, shorter / 20)) face *= SHRINK;
  for (let scale = WINDOW / face; single(shorter * single(scale)) >= WINDOW; scale *= SHRINK) {
    const [h, w] = [height, width].map((side) => Math.trunc(single(side * single(scale)) + 1));
    const pixels = pool({ data, width, height }, [0, 0, width, height], h, w);
    const [shifts, faces] = await run("pnet", pixels, [1, 3, h, w]);
    const [, , rows, columns] = faces.dims, area = rows * columns, here = [];
    for (let i = 0; i < area; i++) {
      const score = probability(faces.data[i], faces.data[area + i]);
      if (score <= THRESHOLDS[0]) continue;
      const [x, y] = [STRIDE * (i % columns), STRIDE * Math.floor(i / columns)];
      const box = [x + 1, y + 1, x + WINDOW, y + WINDOW].map((side) => side / scale);
      here.push({ score, box, shift: [0, 1, 2, 3].map((k) => shifts.data[k * area + i]) });
    }
    found.push(...keepBest(here, 0.5));
  }
  return keepBest(found, 0.7).map(({ box, shift }) => ({ box: moved(box, shift) }));
}

async function refine(name, picture, candidates, size, threshold, overlap, run) {
  if (!candidates.length) return [];
  const boxes = candidates.map(({ box }) => squared(box).map(rint)), each = 3 * size * size;
  const pixels = new Float32Array(boxes.length * each);
  for (const [i, box] of boxes.entries()) pool(picture, box, size, size, pixels.subarray(i * each, (i + 1) * each));
  const outputs = await run(name, pixels, [boxes.length, 3, size, size]);
  const [shifts, faces, shares] = [outputs[0].data, outputs.at(-1).data, outputs.length > 2 ? outputs[1].data : null];
  const found = boxes.map((box, i) => ({
    score: probability(faces[2 * i], faces[2 * i + 1]),
    box: moved(box, shifts.subarray(4 * i, 4 * i + 4)),
    points: shares && [0, 1, 2, 3, 4].map((k) => [
      box[0] + shares[10 * i + k] * (box[2] - box[0]), box[1] + shares[10 * i + 5 + k] * (box[3] - box[1])]),
  }));
  return keepBest(found.filter(({ score }) => score > threshold), overlap);
}

const probability = (other, face) => 1 / (1 + Math.exp(other - face));

const moved = (box, shift) => box.map((side, k) => side + shift[k] * (box[2 + (k % 2)] - box[k % 2]));

function squared([x1, y1, x2, y2]) {
  const [x, y, half] = [(x1 + x2) / 2, (y1 + y2) / 2, Math.max(x2 - x1, y2 - y1) / 2];
  return [x - half, y - half, x + half, y + half];
}

// Of boxes that share more than `overlap` of their union the likeliest stays.
function keepBest(candidates, overlap) {
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const shared = (a, b) => {
    const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
    const both = Math.max(0, width) * Math.max(0, height);
    return both / (area(a) + area(b) - both);
  };
  const kept = [];
  for (const one of [...candidates].sort((a, b) => b.score - a.score))
    if (!kept.some((better) => shared(better.box, one.box) > overlap)) kept.push(one);
  return kept;
}

// The part of a picture within whole numbers [x1, y1, x2, y2], averaged to (3, height, width), (mean - 127.5) / 128.
function pool({ data, width: across, height: down }, [x1, y1, x2, y2], height, width,
  into = new Float32Array(3 * height * width)) {
  const ranges = (from, length, parts) => Array.from({ length: parts }, (_, i) =>
    [from + Math.floor((i * length) / parts), from + Math.ceil(((i + 1) * length) / parts)]);
  const columns = ranges(x1, x2 - x1, width);
  for (const [row, [top, bottom]] of ranges(y1, y2 - y1, height).entries())
    for (const [column, [left, right]] of columns.entries()) {
      let red = 0, green = 0, blue = 0, inside = 0;
      for (let y = Math.max(top, 0); y < Math.min(bottom, down); y++)
        for (let x = Math.max(left, 0), i = 4 * (y * across + x); x < Math.min(right, across); x++, i += 4, inside++) {
          red += data[i];
          green += data[i + 1];
          blue += data[i + 2];
        }
      const count = (bottom - top) * (right - left), outside = GREY * (count - inside);
      for (const [channel, sum] of [red, green, blue].entries())
        into[(channel * height + row) * width + column] = ((sum + outside) / count - GREY) / 128;
    }
  return into;
}

// The rotation, scale and shift that bring points nearest to the template, as [a, b, x, y]: (ax - by + x, bx + ay + y).
export function similarity(points) {
  const mean = (of, k) => of.reduce((sum, point) => sum + point[k], 0) / of.length;
  const [cx, cy, tx, ty] = [mean(points, 0), mean(points, 1), mean(TEMPLATE, 0), mean(TEMPLATE, 1)];
  let along = 0, across = 0, spread = 0;
  for (const [i, [px, py]] of points.entries()) {
    const [x, y, u, v] = [px - cx, py - cy, TEMPLATE[i][0] - tx, TEMPLATE[i][1] - ty];
    along += x * u + y * v;
    across += x * v - y * u;
    spread += x * x + y * y;
  }
  const [a, b] = [along / spread, across / spread];
  return [a, b, tx - (a * cx - b * cy), ty - (b * cx + a * cy)];
}

// The face at five points, 112 x 112, black beyond the picture: each pixel mixed from four in whole numbers.
export function align({ data, width, height }, points) {
  const [a, b, x0, y0] = similarity(points), norm = a * a + b * b, grid = SUBPIXELS * FINER;
  const inverse = [[a / norm, b / norm], [-b / norm, a / norm]];
  const shift = inverse.map(([p, q]) => -p * x0 - q * y0);
  const face = new ImageData(SIZE, SIZE);
  const at = (x, y, c) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + c]);
  for (let row = 0; row < SIZE; row++)
    for (let column = 0; column < SIZE; column++) {
      const [px, py] = [0, 1].map((k) => Math.floor(
        (rint(inverse[k][0] * column * grid) + rint((inverse[k][1] * row + shift[k]) * grid) + FINER / 2) / FINER));
      const [x, y] = [px, py].map((position) => Math.floor(position / SUBPIXELS));
      const [right, below] = [px - x * SUBPIXELS, py - y * SUBPIXELS], out = 4 * (row * SIZE + column);
      for (let c = 0; c < 3; c++) {
        const upper = at(x, y, c) * (SUBPIXELS - right) + at(x + 1, y, c) * right;
        const lower = at(x, y + 1, c) * (SUBPIXELS - right) + at(x + 1, y + 1, c) * right;
        face.data[out + c] = (upper * (SUBPIXELS - below) + lower * below + SUBPIXELS ** 2 / 2) >> 10;
      }
      face.data[out + 3] = 255;
    }
  return face;
}
