/** An advice for people: a table, a sentence, a picture. */
import Table from "cli-table3"
import { type Advice, leastRequests } from "../scale/advice.ts"
import { attainmentOf, type Forecast } from "../scale/play.ts"

const percent = (share: number): string => `${(100 * share).toFixed(1)}%`
const seconds = (ms: number | undefined): string => (ms === undefined ? "–" : `${(ms / 1000).toFixed(2)} s`)

export function describeAdvice(advice: Advice, target: number, source: string): string {
  const table = new Table({
    head: ["replicas", "SLOs kept", "requests", "first token of missed, p50", "p99", "engines idle", ""],
    style: { head: [], border: [] },
    colAligns: ["right", "right", "right", "right", "right", "right", "left"],
  })
  for (const forecast of advice.forecasts)
    table.push([
      forecast.replicas,
      percent(attainmentOf(forecast)),
      forecast.total,
      seconds(forecast.missedTtftMs?.p50),
      seconds(forecast.missedTtftMs?.p99),
      percent(forecast.idleShare),
      noteOf(forecast, advice),
    ])
  return [`${source}:`, table.toString(), ...remarks(advice), recommendation(advice, target)].join("\n")
}

function noteOf({ replicas }: Forecast, { best, replicas: now, enough }: Advice): string {
  return [
    ...(replicas === now ? ["serves now"] : []),
    ...(enough && replicas === best ? ["enough"] : []),
  ].join(", ")
}

function remarks({ measured, growth, each }: Advice): string[] {
  return [
    ...(measured === null ? [] : [`As it was served, ${percent(measured)} of what has ended kept its SLOs.`]),
    ...(growth > 1 ? [`Load rises: ${growth.toFixed(2)} times that of the window is played.`] : []),
    ...(each > 1 ? [`One in ${each} arrivals is played, and one in ${each} replicas.`] : []),
  ]
}

function recommendation(advice: Advice, target: number): string {
  const { best, reached, enough, requests, forecasts, replicas: now } = advice
  if (!enough) {
    const need = leastRequests(target)
    return `Too few requests to say: ${requests} with SLOs, ${need} are needed for ${percent(target)}.`
  }
  const count = (n: number) => (n === 1 ? "1 replica" : `${n} replicas`)
  const chosen = forecasts.find(({ replicas }) => replicas === best)!
  if (!reached)
    return `Not even ${count(best)} keep ${percent(target)} (${percent(attainmentOf(chosen))}): objectives may be out of reach of one replica.`
  const less = forecasts.findLast(({ replicas }) => replicas < best)
  const against =
    less === undefined ? "" : `; ${count(less.replicas)} would keep ${percent(attainmentOf(less))}`
  const change = now === 0 || now === best ? "" : ` (${now} ${now === 1 ? "serves" : "serve"} now)`
  return `Recommended: ${count(best)}${change}, with ${percent(attainmentOf(chosen))} of the SLOs kept${against}.`
}

export async function advicePicture(advice: Advice, target: number, source: string): Promise<string> {
  const { draw } = await import("../study/charts.ts")
  const values = advice.forecasts.map((forecast) => ({
    ...{ replicas: forecast.replicas, kept: attainmentOf(forecast), idle: forecast.idleShare },
    best: advice.enough && forecast.replicas === advice.best ? "recommended" : "others",
  }))
  const share = (title: string) => ({
    ...{ type: "quantitative", title, axis: { format: "%" }, scale: { domain: [0, 1] } },
  })
  const x = { field: "replicas", type: "ordinal", title: "replicas", axis: { labelAngle: 0 } }
  const color = {
    ...{ field: "best", type: "nominal", title: null },
    scale: { domain: ["recommended", "others"], range: ["#4c78a8", "#9ecae9"] },
  }
  return draw({
    title: source.length > 90 ? `${source.slice(0, 89)}…` : source,
    vconcat: [
      {
        ...{ width: 480, height: 200 },
        layer: [
          {
            data: { values },
            mark: "bar",
            encoding: { x, y: { field: "kept", ...share("SLOs kept") }, color },
          },
          {
            data: { values: [{ target }] },
            mark: { type: "rule", strokeDash: [4, 4], color: "#e45756" },
            encoding: { y: { field: "target", ...share("SLOs kept") } },
          },
        ],
      },
      {
        ...{ width: 480, height: 90, data: { values } },
        mark: { type: "line", point: true, color: "#72b7b2" },
        encoding: { x, y: { field: "idle", ...share("engines idle") } },
      },
    ],
  })
}
