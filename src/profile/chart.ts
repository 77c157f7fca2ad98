/** A profile for people: what a step costs, and predicted against measured time, on a terminal or as SVG. */
import Table from "cli-table3"
import { COST_FEATURES, type CostFeature, shapeOf, stepUs } from "../core/cost.ts"
import type { Profile } from "./profile.ts"
import { busyShare, unsettledShare } from "./trust.ts"

const WIDTH = 64
const HEIGHT = 20
/** What one unit of a feature is, in words. */
const UNITS: Record<CostFeature, string> = {
  step: "every step",
  tokens: "per token",
  sequences: "per request in the batch",
  passes: "per forward pass",
  fastPairs: "per 1000 attention pairs, long passes",
  slowPairs: "per 1000 attention pairs, short passes",
  outputs: "per sampled row",
  specSteps: "per draft step",
}
const MARKS = { decode: "d", prefill: "p", mixed: "m", short: "s", speculation: "v" } as const
const COLORS = {
  decode: "#1b6ca8",
  prefill: "#c0392b",
  mixed: "#2e8b57",
  short: "#8e44ad",
  speculation: "#d68910",
} as const

interface Dot {
  kind: keyof typeof MARKS
  predicted: number
  actual: number
}

/** Text of several lines: quality, coefficients and chart. */
export function describeProfile(profile: Profile): string {
  const { r2, mape, residuals, model } = profile
  const ratio = (value: number) => value.toFixed(2)
  return [
    `${profile.modelName} on ${profile.cpu}: ${profile.samples.length} steps in ${profile.seconds.toFixed(1)} s`,
    `R² ${r2.toFixed(3)}   mean error ${percent(mape)}   spread (σ) ${percent(model.residualSigma)}`,
    `actual / predicted: p5 ${ratio(residuals.p5)}  p50 ${ratio(residuals.p50)}  ` +
      `p95 ${ratio(residuals.p95)}  p99 ${ratio(residuals.p99)}`,
    `other programs had the cores for ${percent(busyShare(profile.samples))} of the time: taken out; repeats of ` +
      `${percent(unsettledShare(profile.samples))} of the batches disagree`,
    profile.faults.length === 0 ? "the fit is good" : `THE FIT IS POOR: ${profile.faults.join("; ")}`,
    coefficients(profile),
    scatter(dotsOf(profile)),
  ].join("\n")
}

function coefficients({ model }: Profile): string {
  const table = new Table({
    head: ["cost", "µs", ""],
    style: { head: [] },
    colAligns: ["left", "right", "left"],
  })
  for (const piece of model.pieces) {
    for (const feature of COST_FEATURES) {
      const value = piece[feature]
      if (!value) continue
      const scaled = feature.endsWith("Pairs") ? value * 1000 : value
      table.push([feature, scaled.toPrecision(4), UNITS[feature]])
    }
  }
  return `${table.toString()}\nlong passes: at least ${model.fastPassTokens} tokens per request`
}

/** Measured over predicted time on logarithmic axes; dots on the diagonal are predicted exactly. */
function scatter(dots: readonly Dot[]): string {
  const [low, high] = rangeOf(dots)
  const grid = Array.from({ length: HEIGHT }, () => new Array<string>(WIDTH).fill(" "))
  const column = (us: number) => Math.round(position(us, low, high) * (WIDTH - 1))
  const row = (us: number) => HEIGHT - 1 - Math.round(position(us, low, high) * (HEIGHT - 1))
  for (let x = 0; x < WIDTH; x++) grid[HEIGHT - 1 - Math.round((x / (WIDTH - 1)) * (HEIGHT - 1))]![x] = "·"
  for (const { kind, predicted, actual } of dots) grid[row(actual)]![column(predicted)] = MARKS[kind]
  const axis = `${milliseconds(low)} … ${milliseconds(high)}`
  return [
    `measured ${axis}   (d decode, p prefill, m mixed, s short chunks, v speculation)`,
    ...grid.map((cells) => `│${cells.join("")}`),
    `└${"─".repeat(WIDTH)}`,
    ` predicted ${axis}`,
  ].join("\n")
}

/** The same chart as an SVG document. */
export function profileSvg(profile: Profile): string {
  const dots = dotsOf(profile)
  const [low, high] = rangeOf(dots)
  const size = 480
  const margin = 50
  const at = (us: number) => position(us, low, high) * size
  const circles = dots.map(
    ({ kind, predicted, actual }) =>
      `<circle cx="${(margin + at(predicted)).toFixed(1)}" cy="${(margin + size - at(actual)).toFixed(1)}" r="3.5" ` +
      `fill="${COLORS[kind]}" fill-opacity="0.7"><title>${kind}: measured ${milliseconds(actual)}, predicted ` +
      `${milliseconds(predicted)}</title></circle>`,
  )
  const legend = Object.entries(COLORS).map(
    ([kind, color], i) =>
      `<text x="${margin + 8}" y="${margin + 18 + 16 * i}" fill="${color}">${kind}</text>`,
  )
  const full = size + 2 * margin
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${full} ${full}" font-family="sans-serif" font-size="12">`,
    `<rect x="${margin}" y="${margin}" width="${size}" height="${size}" fill="none" stroke="#999"/>`,
    `<line x1="${margin}" y1="${margin + size}" x2="${margin + size}" y2="${margin}" stroke="#bbb"/>`,
    ...circles,
    ...legend,
    `<text x="${margin}" y="${margin - 12}">measured step time, R² ${profile.r2.toFixed(3)}, ` +
      `mean error ${percent(profile.mape)}</text>`,
    `<text x="${margin}" y="${margin + size + 20}">predicted: ${milliseconds(low)} … ${milliseconds(high)}, log scale</text>`,
    "</svg>\n",
  ].join("\n")
}

function dotsOf({ model, samples }: Profile): Dot[] {
  return samples.map(({ kind, items, us }) => ({
    kind,
    predicted: stepUs(model, shapeOf(items, model)),
    actual: us,
  }))
}

function rangeOf(dots: readonly Dot[]): [low: number, high: number] {
  const all = dots.flatMap(({ predicted, actual }) => [predicted, actual])
  return [Math.max(1, Math.min(...all)), Math.max(2, ...all)]
}

/** Where a time lies between `low` and `high`, 0 … 1, on a logarithmic axis. */
function position(us: number, low: number, high: number): number {
  return high > low ? Math.log(Math.max(us, low) / low) / Math.log(high / low) : 0
}

function milliseconds(us: number): string {
  return `${(us / 1000).toPrecision(3)} ms`
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`
}
