/* Pictures for the net: painted here, or the reader's own; the middle square, averaged down to the net's size. */
"use strict";
const FINE = 8; // pixels of a canvas for one of the net's, each way

function blank(wide) {
  const context = Object.assign(document.createElement("canvas"), { width: wide, height: wide }).getContext("2d");
  return Object.assign(context, { imageSmoothingQuality: "high", fillStyle: "#fff" });
}

/* Pixels (3, size, size) in [0, 1] of a canvas or an image. */
function reduced(image, size) {
  const side = Math.min(image.width, image.height), wide = size * FINE, context = blank(wide);
  context.fillRect(0, 0, wide, wide); // behind what is transparent
  context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, wide, wide);
  const { data } = context.getImageData(0, 0, wide, wide), pixels = new Float32Array(3 * size * size);
  for (let i = 0; i < data.length; i++) {
    const c = i % 4, x = Math.floor((i >> 2) % wide / FINE), y = Math.floor((i >> 2) / wide / FINE);
    if (c < 3) pixels[(c * size + y) * size + x] += data[i] / 255 / FINE ** 2;
  }
  return pixels;
}

function show(pixels, canvas) {
  const size = canvas.width = canvas.height = Math.sqrt(pixels.length / 3), image = new ImageData(size, size);
  for (let i = 0; i < image.data.length; i++) image.data[i] = 255 * (i % 4 < 3 ? pixels[(i % 4) * size * size + (i >> 2)] : 1);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/* Painted for this page on a square of 32: a colour, or one of the top and one of the bottom; the path that it fills. */
const PAINTED = {
  "a ship": [
    ["#7fb0e0 #dfeaf2", "M0 0h32v20H0z"], ["#3f6f94 #1d3f5c", "M0 19.5h32V32H0z"], ["#26303a", "M3 17h26l-3 6H6z"],
    ["#9c2f2a", "M5.3 21.6h21.2L26 23H6z"], ["#f2f2ee", "M8 12.5h14V17H8z"], ["#d9dcd8", "M10 9.5h7v3h-7z"],
    ["#c0482f", "M12 5.5h2.6v4H12z"], ["#4a5560", "M9.5 14h1.2v1.2H9.5zM13 14h1.2v1.2H13zM16.5 14h1.2v1.2h-1.2z"],
    ["#3a444e", "M21.8 8h.7v9h-.7z"], ["#8fb2c8", "M0 24.5h8v.6H0zM12 27h11v.6H12zM25 25h7v.6h-7z"]],
  "an aeroplane": [
    ["#4f8fd0 #cfe2f2", "M0 0h32v32H0z"],
    ["#f4f6f8", "M3 18.2q-1.6-2 1-2.6L25 12.8q4.4-.3 4.6 1.5-.2 1.4-4 2.2L6 19.6z"],
    ["#c3ccd4", "M13.5 15.4L7 7.6l2.4-.4 10.2 7.2z"], ["#aab5bf", "M14 17.4l-2.2 8.4 2.6-.6 6.6-9z"],
    ["#d84b3a", "M3.6 15.8L1.6 9.4l2.4-.3 4.4 5.6z"], ["#43505c", "M26.4 13.2l2 .6-1.6.5zM10 16h12v.5H10z"]],
  "a car": [
    ["#b9cfe0 #dfe4e2", "M0 0h32v18H0z"], ["#5f7d4c", "M0 16h32v3.5H0z"], ["#6b6b6b #4c4c4c", "M0 19.5h32V32H0z"],
    ["#2b2b2b", "M3 24.6h26v1.6H3z"], ["#c4201f", "M2.5 24.5v-5l5-1.6 4.2-4.6h9.2l4 4.6 4.6 1.5v5.1z"],
    ["#bfe0f0", "M9.2 17.9l3.3-3.6h3.4v3.6zM17 14.3h3.4l3 3.6H17z"],
    ["#16181a", "M8.6 21.4a3 3 0 1 0 .1 0zM23 21.4a3 3 0 1 0 .1 0z"],
    ["#c9ced2", "M8.6 22.9a1.5 1.5 0 1 0 .1 0zM23 22.9a1.5 1.5 0 1 0 .1 0z"], ["#f5e27a", "M28 20h1.5v1.4H28z"]],
  "a frog": [
    ["#8a7a4a #5a4a2c", "M0 0h32v32H0z"], ["#4d8a2f", "M5 23q-2-9 7-11.5h8q9 2.5 7 11.5-3 4-11 4T5 23z"],
    ["#3a7023", "M4 27q-2-6 3-8l3 8zM28 27q2-6-3-8l-3 8z"],
    ["#5f9e3a", "M8.5 13a3.6 3.6 0 1 1 5-1.5zM23.5 13a3.6 3.6 0 1 0-5-1.5z"],
    ["#f0e08a", "M10.6 8.4a1.7 1.7 0 1 0 .1 0zM21.3 8.4a1.7 1.7 0 1 0 .1 0z"],
    ["#14160e", "M10.6 9.1a1 1 0 1 0 .1 0zM21.3 9.1a1 1 0 1 0 .1 0z"],
    ["#c9d58c", "M9 21q7 5 14 0-2 5.5-7 5.5T9 21z"], ["#2c4d1a", "M8 18.6q8 5 16 0l-.3.8q-7.7 4.6-15.4 0z"]],
};

function painted(paths) {
  const context = blank(32 * FINE);
  context.scale(FINE, FINE);
  for (const [colours, path] of paths) {
    const [top, low = top] = colours.split(" ");
    context.fillStyle = context.createLinearGradient(0, 0, 0, 32);
    context.fillStyle.addColorStop(0, top);
    context.fillStyle.addColorStop(1, low);
    context.fill(new Path2D(path));
  }
  return context.canvas;
}
