/** The best tau_S over the queries that were spent. */

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [460, 190, 26, 8, 10, 24];

/** Draw each query as a dot, and the best so far as a line. */
export function draw(svg, scores, budget) {
  const x = (queries) => LEFT + ((WIDTH - LEFT - RIGHT) * queries) / budget;
  const y = (tau) => TOP + ((HEIGHT - TOP - BOTTOM) * (1 - tau)) / 2;
  const rules = [-1, 0, 1].flatMap((tau) => [
    part("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tau), y2: y(tau), class: "rule" }),
    part("text", { x: LEFT - 6, y: y(tau) + 4, class: "end" }, String(tau).replace("-", "−")),
  ]);
  const ends = [
    part("text", { x: LEFT, y: HEIGHT - 5 }, "0"),
    part("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, class: "end" }, `${budget.toLocaleString("en")} queries`),
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
    ...rules,
    ...ends,
    part("path", { d: dots, class: "dots" }),
    part("path", { d: line, class: "line" }),
    part("circle", { cx: x(scores.length), cy: y(best), r: 4 }),
  );
}

function part(tag, attributes, text = "") {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
