/** The scaling signal for Prometheus: what an autoscaler follows, and what it rests on. Nothing is shown before the first
 * forecast: an autoscaler that finds no value leaves the fleet as it is. */
import { Counter, Gauge, type Registry } from "prom-client"

/** A forecast for one number of replicas. */
export interface ScaleForecast {
  replicas: number
  total: number
  kept: number
  idleShare: number
}

export interface ScaleSource {
  readonly replicas: number
  readonly nowUs: number
  /** Spent on forecasts, ms. */
  readonly busyMs: number
  readonly latest: {
    readonly wanted: number
    readonly atUs: number
    readonly advice: {
      readonly forecasts: readonly ScaleForecast[]
      readonly requests: number
      readonly enough: boolean
      readonly growth: number
      readonly spanS: number
      readonly measured: number | null
    }
  } | null
}

type Latest = NonNullable<ScaleSource["latest"]>

const SIGNAL: readonly (readonly [name: string, help: string, read: (latest: Latest) => number | null])[] = [
  [
    "slos_serve_replicas_wanted",
    "Replicas that keep the target share of the SLOs if the next minutes are like the last.",
    ({ wanted }) => wanted,
  ],
  [
    "slos_serve_forecast_requests",
    "Requests with SLOs that the forecast rests on.",
    ({ advice }) => advice.requests,
  ],
  [
    "slos_serve_forecast_enough",
    "1 where these are enough to say what would be kept; 0: the fleet stays as it is, or goes to one where it idles.",
    ({ advice }) => Number(advice.enough),
  ],
  ["slos_serve_forecast_window_seconds", "Time of arrivals that was played.", ({ advice }) => advice.spanS],
  [
    "slos_serve_forecast_growth_ratio",
    "Load in the forecast over that of the window.",
    ({ advice }) => advice.growth,
  ],
  [
    "slos_serve_forecast_measured_ratio",
    "Share of the window's ended requests that kept every SLO as they were served.",
    ({ advice }) => advice.measured,
  ],
]

export function registerScale(registry: Registry, source: ScaleSource): void {
  const registers = [registry]
  const gauge = (
    name: string,
    help: string,
    labelNames: string[],
    show: (gauge: Gauge, latest: Latest) => void,
  ) =>
    new Gauge({
      ...{ name, help, labelNames, registers },
      collect() {
        this.reset()
        // A gauge without labels shows 0 after a reset.
        if (source.latest === null && labelNames.length === 0) this.remove()
        else if (source.latest === null) return
        else show(this, source.latest)
      },
    })
  new Gauge({
    ...{ name: "slos_serve_replicas", help: "Replicas that serve.", registers },
    collect() {
      this.set(source.replicas)
    },
  })
  for (const [name, help, read] of SIGNAL)
    gauge(name, help, [], (own, latest) => {
      const value = read(latest)
      if (value === null) own.remove()
      else own.set(value)
    })
  gauge(
    "slos_serve_forecast_attainment",
    "Share of the SLOs that a fleet of this size would keep.",
    ["replicas"],
    (own, { advice }) => {
      for (const { replicas, kept, total } of advice.forecasts)
        if (total > 0) own.set({ replicas }, kept / total)
    },
  )
  gauge(
    "slos_serve_forecast_idle_ratio",
    "Share of the time in which replicas of such a fleet would compute nothing.",
    ["replicas"],
    (own, { advice }) => {
      for (const { replicas, idleShare } of advice.forecasts) own.set({ replicas }, idleShare)
    },
  )
  gauge("slos_serve_forecast_age_seconds", "Since the forecast was begun.", [], (own, { atUs }) =>
    own.set((source.nowUs - atUs) / 1e6),
  )
  new Counter({
    ...{
      name: "slos_serve_forecast_busy_seconds_total",
      help: "Time spent on forecasts, at a tenth of a core.",
      registers,
    },
    collect() {
      this.reset()
      this.inc(source.busyMs / 1000)
    },
  })
}
