/** Actual over predicted step time of two codes as an SVG, drawn by vega-lite. */
import * as vega from "vega"
import { compile, type TopLevelSpec } from "vega-lite"
import { BINS, type Findings } from "./findings.ts"

const WIDTH = 0.05

export async function errorsChart(sides: Record<string, Findings>, title: string): Promise<string> {
  const values = Object.entries(sides).flatMap(([side, { histogram, steps, over }]) =>
    histogram.map((count, bin) => ({
      code: `${side}: ${(100 * over["1.2"]).toFixed(1)}% above 1.2`,
      ratio: (BINS[bin] ?? BINS.at(-1)! + WIDTH) - WIDTH / 2,
      share: count / steps,
    })),
  )
  const spec: TopLevelSpec = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    ...{ title, width: 640, height: 320, background: "white", data: { values } },
    layer: [
      {
        mark: { type: "line", interpolate: "step", strokeWidth: 2 },
        encoding: {
          x: {
            field: "ratio",
            type: "quantitative",
            title: "actual / predicted step time (the ends are open)",
          },
          y: { field: "share", type: "quantitative", title: "share of the steps", axis: { format: "%" } },
          color: { field: "code", type: "nominal", title: null },
        },
      },
      { mark: { type: "rule", strokeDash: [4, 4] }, encoding: { x: { datum: 1.2 } } },
    ],
  }
  return new vega.View(vega.parse(compile(spec).spec), { renderer: "none" }).toSVG()
}
