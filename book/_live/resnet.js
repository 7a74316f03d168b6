/* A CIFAR ResNet of option A, computed in the page. A map is {channels, size, values}: by channel, row and column. */
"use strict";

/* The net of net.js (made by book/live.py): its layers and the mean image. */
const unpacked = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

function layersOf(net) {
  const weights = new Int8Array(unpacked(net.weights)), floats = new Float32Array(unpacked(net.floats));
  let weight = 0, float = 0;
  const layers = net.layers.map(([inputs, outputs, stride], i) => {
    const each = inputs * (i < net.layers.length - 1 ? 9 : 1); // the last layer is fully connected
    return { inputs, outputs, stride, weights: weights.subarray(weight, (weight += each * outputs)),
      factor: floats.subarray(float, (float += outputs)), shift: floats.subarray(float, (float += outputs)) };
  });
  return { layers, mean: floats.subarray(float) };
}

/* A 3x3 convolution with a border of zeros, then batch normalisation: a factor and a shift a channel. */
function convolution(map, { inputs, outputs, stride, weights, factor, shift }) {
  const wide = map.size + 2, size = map.size / stride, padded = new Float32Array(inputs * wide * wide);
  for (let c = 0; c < inputs; c++)
    for (let y = 0; y < map.size; y++) {
      const from = (c * map.size + y) * map.size;
      padded.set(map.values.subarray(from, from + map.size), (c * wide + y + 1) * wide + 1);
    }
  const values = new Float32Array(outputs * size * size);
  for (let o = 0; o < outputs; o++) {
    const out = values.subarray(o * size * size, (o + 1) * size * size);
    for (let c = 0; c < inputs; c++) {
      const [a, b, d, e, f, g, h, i, j] = weights.subarray((o * inputs + c) * 9, (o * inputs + c + 1) * 9);
      for (let y = 0; y < size; y++) {
        let top = (c * wide + y * stride) * wide, middle = top + wide, low = middle + wide;
        for (let to = y * size; to < (y + 1) * size; to++, top += stride, middle += stride, low += stride)
          out[to] += a * padded[top] + b * padded[top + 1] + d * padded[top + 2]
            + e * padded[middle] + f * padded[middle + 1] + g * padded[middle + 2]
            + h * padded[low] + i * padded[low + 1] + j * padded[low + 2];
      }
    }
    for (let i = 0; i < out.length; i++) out[i] = out[i] * factor[o] + shift[o];
  }
  return { channels: outputs, size, values };
}

const relu = (map) => ({ ...map, values: map.values.map((value) => Math.max(0, value)) });

/* Option A: the identity; where the map is halved every second pixel of it, and zeros for the new channels. */
function shortcut(map, { outputs, stride }) {
  const size = map.size / stride, values = new Float32Array(outputs * size * size);
  for (let c = 0; c < map.channels; c++)
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++)
        values[(c * size + y) * size + x] = map.values[(c * map.size + y * stride) * map.size + x * stride];
  return { channels: outputs, size, values };
}

function deviation({ values }) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}

/* What the net makes of pixels (3, size, size) in [0, 1]. out: names of what is taken out, "x3" or "F3" of block 3.
   Responses: the standard deviation after BN and before the ReLU or the addition (Fig. 7), by layer; null where F is out. */
function compute({ layers, mean }, pixels, out) {
  const responses = [], layer = (map, of) => {
    const made = convolution(map, of);
    responses.push(deviation(made));
    return made;
  };
  const [stem, ...inner] = layers, head = inner.pop();
  let map = { channels: 3, size: Math.sqrt(pixels.length / 3), values: pixels.map((value, i) => value - mean[i]) };
  map = relu(layer(map, stem));
  for (let block = 0; block < inner.length / 2; block++) {
    const [first, second] = inner.slice(2 * block, 2 * block + 2), x = shortcut(map, { ...first, outputs: second.outputs });
    const sum = { ...x, values: out.has(`x${block}`) ? new Float32Array(x.values.length) : x.values };
    if (out.has(`F${block}`)) responses.push(null, null);
    else layer(relu(layer(map, first)), second).values.forEach((value, i) => { sum.values[i] += value; });
    map = relu(sum);
  }
  const area = map.size ** 2, logits = [...head.shift];
  for (let c = 0; c < head.inputs; c++) {
    const pooled = map.values.subarray(c * area, (c + 1) * area).reduce((sum, value) => sum + value, 0) / area;
    logits.forEach((_, k) => { logits[k] += pooled * head.weights[k * head.inputs + c] * head.factor[k]; });
  }
  const raised = logits.map((logit) => Math.exp(logit - Math.max(...logits))), all = raised.reduce((a, b) => a + b);
  return { logits, probabilities: raised.map((value) => value / all), responses };
}
