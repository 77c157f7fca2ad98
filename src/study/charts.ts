/** Charts of simulated results as SVG, drawn by vega-lite. */
import type { TopLevelSpec } from "vega-lite"
import type { PlannerLatency } from "./planner-latency.ts"
import type { Study } from "./results.ts"
import type { RunReport } from "./run.ts"
import type { RunSpec } from "./spec.ts"
import { RIVAL_GROUPS, RIVALS } from "./systems.ts"
import { geomean, ratios, wayName, ways } from "./tables.ts"
import { loadVega } from "./vega.ts"

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
  legend: {
    labelColor: INK,
    titleColor: INK,
    labelLimit: 400,
    symbolBaseFillColor: INK,
    symbolBaseStrokeColor: INK,
  },
  header: { labelColor: INK, titleColor: INK },
  view: { stroke: INK, strokeOpacity: 0.3 },
}

/** SVG text of a vega-lite specification, drawn without a browser. Throws UserError where vega is not installed. */
export async function draw(spec: object): Promise<string> {
  const { vega, lite } = await loadVega()
  const full = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    config: CONFIG,
    ...spec,
  } as TopLevelSpec
  const view = new vega.View(vega.parse(lite.compile(full).spec), { renderer: "none", logLevel: vega.Error })
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

const COLUMNS = 3
/** Panels in the order of the study. */
const facetOf = (values: readonly { scenario: string }[]) => ({
  ...{ field: "scenario", type: "nominal", title: null },
  sort: [...new Set(values.map(({ scenario }) => scenario))],
})
const SYSTEM_COLOR = { field: "system", type: "nominal", scale: { scheme: "tableau10" }, title: null }

const WAY_COLOR = {
  field: "decoding",
  type: "nominal",
  title: null,
  scale: { range: ["#4c78a8", "#f58518"] },
}

const ATTAINMENT = {
  field: "attainment",
  type: "quantitative",
  title: "SLOs kept",
  axis: { format: "%" },
  scale: { domain: [0, 1] },
} as const

/** Bars of every system's capacity, a panel a scenario; ticks mark the bound. */
export async function capacityChart({ rows }: Study): Promise<string | null> {
  if (rows.length === 0) return null
  const values = rows.map((row) => ({
    scenario: `${row.scenario} (${row.spec.replicas * row.spec.hardware.gpus} GPUs)`,
    system: row.system,
    decoding: wayName(row.speculate),
    rate: row.ratePerSec,
    low: row.perSeed.length > 1 ? Math.min(...row.perSeed) : row.ratePerSec,
    high: row.perSeed.length > 1 ? Math.max(...row.perSeed) : row.ratePerSec,
    bound: row.bound.ratePerSec,
  }))
  const y = { field: "system", type: "nominal", sort: null, title: null }
  const yOffset = { field: "decoding" }
  const x = (field: string) => ({ field, type: "quantitative", title: "requests/s" })
  return draw({
    data: { values },
    facet: facetOf(values),
    columns: COLUMNS,
    resolve: { scale: { x: "independent" } },
    spec: {
      width: 240,
      height: { step: 12 },
      layer: [
        { mark: "bar", encoding: { y, yOffset, x: x("rate"), color: WAY_COLOR } },
        {
          mark: { type: "rule", color: INK, strokeWidth: 1.5 },
          encoding: { y, yOffset, x: x("low"), x2: { field: "high" } },
        },
        { mark: { type: "tick", color: INK, thickness: 1 }, encoding: { y, yOffset, x: x("bound") } },
      ],
    },
  })
}

const RATIO_PANEL = { width: { step: 18 }, height: 240 }
const RATIO_X = { field: "scenario", type: "nominal", sort: null, title: null, axis: { labelAngle: -30 } }

/** Ours over the best baseline and peer, and over the bound. */
export async function ratioChart(study: Study): Promise<string | null> {
  const values = ways(study).flatMap((way) =>
    RIVAL_GROUPS.flatMap((group) => {
      const found = ratios(study.rows, group, way)
      const all = { scenario: "geometric mean", ratio: geomean(found.map(({ ratio }) => ratio)) }
      return [...found, ...(found.length > 1 ? [all] : [])].map(({ scenario, ratio }) => ({
        scenario,
        ratio,
        against: `${RIVALS[group]}, ${wayName(way)}`,
      }))
    }),
  )
  const bounds = study.rows
    .filter((row) => row.system === "slos-serve")
    .map((row) => ({
      scenario: row.scenario,
      share: row.ratePerSec / row.bound.ratePerSec,
      decoding: wayName(row.speculate),
    }))
  if (values.length === 0 && bounds.length === 0) return null
  return draw({
    vconcat: [
      {
        ...RATIO_PANEL,
        title: "capacity of slos-serve over",
        data: { values },
        layer: [
          {
            mark: "bar",
            encoding: {
              x: RATIO_X,
              xOffset: { field: "against" },
              y: { field: "ratio", type: "quantitative", title: "ratio" },
              color: { field: "against", type: "nominal", title: null, scale: { scheme: "tableau10" } },
            },
          },
          { mark: { type: "rule", color: INK, strokeDash: [4, 4] }, encoding: { y: { datum: 1 } } },
        ],
      },
      {
        ...RATIO_PANEL,
        title: "share of the fluid bound",
        data: { values: bounds },
        mark: "bar",
        encoding: {
          x: RATIO_X,
          xOffset: { field: "decoding" },
          // A short run may lie above its bound.
          y: { field: "share", type: "quantitative", title: null, axis: { format: "%" } },
          color: WAY_COLOR,
        },
      },
    ],
    resolve: { scale: { color: "independent" } },
  })
}

/** Attainment of the leaders at rates around their capacities. */
export async function curveChart({ curves }: Study): Promise<string | null> {
  if (curves.length === 0) return null
  const values = curves.flatMap(({ scenario, system, points }) =>
    points.map((point) => ({ scenario, system, ...point })),
  )
  return draw({
    data: { values },
    facet: facetOf(values),
    columns: COLUMNS,
    resolve: { scale: { x: "independent" } },
    spec: {
      width: 280,
      height: 180,
      layer: [
        {
          mark: { type: "line", point: true },
          encoding: {
            x: { field: "ratePerSec", type: "quantitative", title: "requests/s", scale: { zero: false } },
            y: ATTAINMENT,
            color: SYSTEM_COLOR,
          },
        },
        { mark: { type: "rule", color: INK, strokeDash: [4, 4] }, encoding: { y: { datum: 0.9 } } },
      ],
    },
  })
}

/** Attainment by tenth of the requests by size. */
export async function decileChart({ curves }: Study): Promise<string | null> {
  if (curves.length === 0) return null
  const values = curves.flatMap(({ scenario, system, deciles }) =>
    deciles.map(({ attainment }, i) => ({ scenario, system, decile: i + 1, attainment })),
  )
  return draw({
    data: { values },
    facet: facetOf(values),
    columns: COLUMNS,
    spec: {
      width: 280,
      height: 140,
      mark: { type: "line", point: true },
      encoding: {
        x: {
          field: "decile",
          type: "ordinal",
          title: "tenth of the requests, smallest first",
          axis: { labelAngle: 0 },
        },
        y: ATTAINMENT,
        color: SYSTEM_COLOR,
      },
    },
  })
}

/** Change of our capacity without each piece. */
export async function ablationChart({ ablations }: Study): Promise<string | null> {
  const whole = new Map(
    ablations.filter(({ without }) => without === "nothing").map((a) => [a.scenario, a.ratePerSec]),
  )
  const values = ablations
    .filter(({ without }) => without !== "nothing")
    .map((a) => ({ ...a, change: a.ratePerSec / whole.get(a.scenario)! - 1 }))
  if (values.length === 0) return null
  return draw({
    data: { values },
    facet: facetOf(values),
    columns: COLUMNS,
    spec: {
      width: 200,
      height: { step: 20 },
      mark: "bar",
      encoding: {
        y: { field: "without", type: "nominal", sort: null, title: null },
        x: { field: "change", type: "quantitative", title: "change of capacity", axis: { format: "+%" } },
        color: { condition: { test: "datum.change < 0", value: "#e45756" }, value: "#54a24b" },
      },
    },
  })
}

/** Capacity per GPU by fleet size: level where a fleet holds what its GPUs hold alone. */
export async function fleetChart({ fleetSizes }: Study): Promise<string | null> {
  if (fleetSizes.length === 0) return null
  const values = fleetSizes
    .filter(({ ratePerSec }) => ratePerSec > 0)
    .map((size) => ({ ...size, perGpu: size.ratePerSec / size.replicas }))
  const sizes = [...new Set(values.map(({ replicas }) => replicas))]
  return draw({
    width: 480,
    height: 280,
    data: { values },
    mark: { type: "line", point: true },
    encoding: {
      x: {
        field: "replicas",
        type: "quantitative",
        title: "GPUs (log)",
        scale: { type: "log", base: 2 },
        axis: { values: sizes },
      },
      y: { field: "perGpu", type: "quantitative", title: "requests/s per GPU", scale: { zero: true } },
      color: SYSTEM_COLOR,
    },
  })
}

/** Decision times by number of live requests. */
export async function latencyChart(latencies: readonly PlannerLatency[]): Promise<string | null> {
  if (latencies.length === 0) return null
  const values = latencies.flatMap(({ upTo, us, scenario, speculate }) =>
    (["p50", "p99"] as const).map((level) => ({
      level,
      us: us[level],
      live: upTo === Infinity ? "more" : `≤ ${upTo}`,
      run: `${scenario}, ${wayName(speculate)}`,
    })),
  )
  return draw({
    width: 480,
    height: 240,
    data: { values },
    mark: { type: "line", point: true },
    encoding: {
      x: {
        field: "live",
        type: "ordinal",
        sort: null,
        title: "requests in the replica",
        axis: { labelAngle: 0 },
      },
      y: { field: "us", type: "quantitative", title: "µs a decision (log)", scale: { type: "log" } },
      color: { field: "run", type: "nominal", title: null, scale: { scheme: "tableau10" } },
      strokeDash: {
        field: "level",
        type: "nominal",
        title: null,
        legend: null,
      },
    },
  })
}
