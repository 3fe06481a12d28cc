/** A chart of tau_S over the number of queries. */

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [460, 190, 26, 8, 10, 24];

/** Draw every query as a dot and the best so far as a line. */
export function draw(svg, scores, budget) {
  const x = (queries) => LEFT + ((WIDTH - LEFT - RIGHT) * queries) / budget;
  const y = (tau) => TOP + ((HEIGHT - TOP - BOTTOM) * (1 - tau)) / 2;
  const gridLines = [-1, 0, 1].flatMap((tau) => [
    shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tau), y2: y(tau), class: "rule" }),
    shape("text", { x: LEFT - 6, y: y(tau) + 4, class: "end" }, String(tau).replace("-", "−")),
  ]);
  const ends = [
    shape("text", { x: LEFT, y: HEIGHT - 5 }, "0"),
    shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, class: "end" }, `${budget.toLocaleString("en")} queries`),
  ];
  const dots = scores.map((tau, place) => `M${x(place + 1)} ${y(tau)}h0`).join("");
  let best = scores[0];
  let line = `M${x(1)} ${y(best)}`;
  for (const [place, tau] of scores.entries()) {
    if (tau <= best) continue;
    best = tau;
    line += `H${x(place + 1)}V${y(best)}`;
  }
  line += `H${x(scores.length)}`;
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("aria-label", `Best tau S after ${scores.length} of ${budget} queries: ${best.toFixed(2)}`);
  svg.replaceChildren(
    ...gridLines,
    ...ends,
    shape("path", { d: dots, class: "dots" }),
    shape("path", { d: line, class: "line" }),
    shape("circle", { cx: x(scores.length), cy: y(best), r: 4 }),
  );
}

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
