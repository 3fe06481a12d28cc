/** The difference between two images, amplified around grey. */

const GREY = 128;
const MAX_CHANGE = 127;

/** Draw the difference between two loaded images of one size; returns the factor it was multiplied by. */
export function drawChange(canvas, original, adversarial) {
  const [before, after] = [original, adversarial].map(pixels);
  const change = after.data.map(() => 0);
  const differences = Array.from(after.data, (value, place) => value - before.data[place]);
  const largest = differences.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const factor = largest ? Math.max(1, Math.floor(MAX_CHANGE / largest)) : 1;
  for (const [place, value] of differences.entries()) change[place] = place % 4 === 3 ? 255 : GREY + factor * value;
  canvas.width = after.width;
  canvas.height = after.height;
  canvas.className = adversarial.className;
  canvas.getContext("2d").putImageData(new ImageData(change, after.width, after.height), 0, 0);
  return factor;
}

function pixels(image) {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  return pen.getImageData(0, 0, width, height);
}
