/** Ours minus the best rival, a square a cell. */
import { draw } from "../../src/study/charts.ts"
import type { Verdict } from "./findings.ts"

/** Points of attainment at which the colour is full: smaller differences are what the map is looked at for. */
const FULL_POINTS = 10

export function heatMap(cells: readonly Verdict[], title: string): Promise<string> {
  const values = cells.map((cell) => ({
    tpot: `${cell.tpotFactor}×`,
    ttft: cell.ttft,
    difference: cell.difference,
    shares: `${cell.oursPoints.toFixed(0)} : ${cell.bestPoints.toFixed(0)}`,
  }))
  const axis = (field: "tpot" | "ttft", text: string) => ({
    field,
    type: "ordinal",
    sort: [...new Set(values.map((value) => value[field]))],
    title: text,
    axis: { labelAngle: 0, grid: false },
  })
  return draw({
    title: {
      text: title,
      subtitle: "points of attainment, ours minus the best rival; below: ours : best rival, %",
    },
    width: { step: 62 },
    height: { step: 40 },
    data: { values },
    encoding: {
      x: axis("tpot", "TPOT, as a multiple of the shortest possible step"),
      y: axis("ttft", "TTFT (× zero-load prefill)"),
    },
    layer: [
      {
        mark: "rect",
        encoding: {
          color: {
            field: "difference",
            type: "quantitative",
            title: "points",
            scale: {
              range: ["#b2182b", "#f7f7f7", "#2166ac"],
              domain: [-FULL_POINTS, 0, FULL_POINTS],
              clamp: true,
            },
          },
        },
      },
      label(-6, 12, { field: "difference", type: "quantitative", format: "+.1f" }),
      label(9, 9, { field: "shares", type: "nominal" }),
    ],
  })
}

function label(dy: number, fontSize: number, text: object) {
  const strong = `abs(datum.difference) > ${0.7 * FULL_POINTS}`
  return {
    mark: { type: "text", dy, fontSize },
    encoding: { text, color: { condition: { test: strong, value: "#ffffff" }, value: "#333333" } },
  }
}
