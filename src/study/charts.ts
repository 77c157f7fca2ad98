/** Charts of simulated results as SVG, drawn by vega-lite. */
import * as vega from "vega"
import { compile, type TopLevelSpec } from "vega-lite"
import type { RunReport } from "./run.ts"
import type { RunSpec } from "./spec.ts"

/** Colours that read on light and dark ground; the ground itself stays transparent. */
const INK = "#808794"
const CONFIG = {
  background: "transparent",
  font: "system-ui, sans-serif",
  title: { color: INK, anchor: "start" as const, fontSize: 14 },
  axis: {
    labelColor: INK,
    titleColor: INK,
    gridColor: INK,
    gridOpacity: 0.2,
    domainColor: INK,
    tickColor: INK,
    labelLimit: 260,
  },
  legend: { labelColor: INK, titleColor: INK, labelLimit: 260 },
  header: { labelColor: INK, titleColor: INK },
  view: { stroke: INK, strokeOpacity: 0.3 },
}

/** SVG text of a vega-lite specification, drawn without a browser. */
export async function draw(spec: object): Promise<string> {
  const full = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    config: CONFIG,
    ...spec,
  } as TopLevelSpec
  const view = new vega.View(vega.parse(compile(full).spec), { renderer: "none", logLevel: vega.Error })
  return view.toSVG()
}

/** Attainment, requests in the system and KV over the time of one run. */
export async function timelineChart(spec: RunSpec, report: RunReport): Promise<string> {
  const values = report.timeline.map((slice) => ({
    ...slice,
    attainment: slice.total === 0 ? null : slice.kept / slice.total,
  }))
  const panel = (field: string, title: string, format: string, domain?: [number, number]) => ({
    width: 720,
    height: 110,
    mark: { type: "line", interpolate: "step", color: "#4c78a8" },
    encoding: {
      x: { field: "atS", type: "quantitative", title: "time (s)" },
      y: { field, type: "quantitative", title, axis: { format }, ...(domain && { scale: { domain } }) },
    },
  })
  return draw({
    title: `${spec.scenario} at ${spec.ratePerSec}/s, ${spec.replicas} replicas, ${spec.policy}`,
    data: { values },
    vconcat: [
      panel("attainment", "SLOs kept, by arrival", "%", [0, 1]),
      panel("live", "requests in the system", "d"),
      panel("kv", "KV in use", "%", [0, 1]),
    ],
  })
}
