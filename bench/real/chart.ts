/** Attainment against rate as an SVG, drawn by vega-lite. */
import * as vega from "vega"
import { compile, type TopLevelSpec } from "vega-lite"

export interface ChartPoint {
  system: string
  ratePerSec: number
  attainment: number
  low: number
  high: number
}

export async function attainmentChart(points: readonly ChartPoint[], title: string): Promise<string> {
  const x = {
    field: "ratePerSec",
    type: "quantitative" as const,
    scale: { type: "log" as const, nice: false },
    title: "requests per second (log)",
  }
  const color = { field: "system", type: "nominal" as const, scale: { scheme: "tableau20" as const } }
  const axis = { format: "%" }
  const scale = { domain: [0, 1] }
  const spec: TopLevelSpec = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title,
    width: 640,
    height: 360,
    background: "white",
    data: { values: [...points] },
    layer: [
      {
        mark: { type: "line", point: true },
        encoding: {
          x,
          y: {
            field: "attainment",
            type: "quantitative",
            title: "requests with every SLO kept",
            axis,
            scale,
          },
          color,
        },
      },
      {
        mark: { type: "rule", opacity: 0.4 },
        encoding: { x, y: { field: "low", type: "quantitative" }, y2: { field: "high" }, color },
      },
      { mark: { type: "rule", strokeDash: [4, 4] }, encoding: { y: { datum: 0.9 } } },
    ],
  }
  const view = new vega.View(vega.parse(compile(spec).spec), { renderer: "none" })
  return view.toSVG()
}
