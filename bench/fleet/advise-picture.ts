/** A day of advice as a picture: load, replicas advised, asked for and needed, and attainment foretold and kept. */
import { draw } from "../../src/study/charts.ts"
import type { Day } from "./advise.ts"
import { neededIn } from "./advise-tables.ts"

const HOURS = {
  field: "hour",
  type: "quantitative",
  title: "hour of the day",
  scale: { domain: [0, 24], nice: false },
}

export async function advicePicture({ minutes }: Day): Promise<string> {
  const hour = (minute: number) => minute / 4
  const rates = minutes.map(({ minute, ratePerSec }) => ({ hour: hour(minute), ratePerSec }))
  const replicas = minutes.flatMap((one) => [
    { hour: hour(one.minute), what: "needed, as it turned out", count: neededIn(one) },
    { hour: hour(one.minute), what: "advised", count: one.best },
    { hour: hour(one.minute), what: "asked for", count: one.wanted },
  ])
  const kept = minutes.flatMap((one) => [
    { hour: hour(one.minute), what: "foretold", share: one.foretold[one.best] ?? null },
    { hour: hour(one.minute), what: "kept", share: one.kept[one.best] ?? null },
  ])
  const panel = (values: object[], y: object, color: object | null, mark: object) => ({
    ...{ width: 720, height: 130, data: { values }, mark },
    encoding: { x: HOURS, y, ...(color && { color }) },
  })
  const what = (scheme: string) => ({
    field: "what",
    type: "nominal",
    title: null,
    sort: null,
    scale: { scheme },
  })
  const steps = { type: "line", interpolate: "step-after" }
  return draw({
    vconcat: [
      panel(rates, { field: "ratePerSec", type: "quantitative", title: "requests/s" }, null, {
        ...steps,
        color: "#4c78a8",
      }),
      panel(replicas, { field: "count", type: "quantitative", title: "replicas" }, what("tableau10"), steps),
      panel(
        kept,
        {
          ...{ field: "share", type: "quantitative", title: "SLOs kept at that size" },
          ...{ axis: { format: "%" }, scale: { domain: [0.5, 1], clamp: true } },
        },
        what("dark2"),
        steps,
      ),
    ],
    resolve: { scale: { color: "independent" } },
  })
}
