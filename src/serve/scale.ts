/** The scaling signal of a service: its arrivals, and what one more replica would be like. */
import type { RouterOptions } from "../router/router.ts"
import { Advisor, type AdvisorOptions } from "../scale/advisor.ts"
import { arrivalsIn, copiesTogether, movedCopy, type RingCopy } from "../scale/arrival-ring.ts"
import type { FleetSetup } from "../scale/play.ts"
import type { RecordedFleet } from "../scale/recording-file.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { Service } from "./service.ts"

/** Where nothing was drafted yet. */
const ACCEPTANCE = 0.7

/** Recordings know one prefix a class, so a forecast routes by sessions and offers alone; real fleets look for prefixes as well. */
const ROUTER: RouterOptions = { kind: "offer", affinity: true, reoffers: 3 }

/** What one process of a server recorded. */
export interface ToldArrivals {
  copy: RingCopy
  nowUs: number
}

/** All of them are asked for that. */
export const ARRIVALS = "arrivals"

export function toldArrivals({ recorder }: Service): ToldArrivals {
  return { copy: recorder.ring.copy(), nowUs: recorder.nowUs }
}

/** Begins forecasts; they end with the service. `siblings`: other processes of the server, whose arrivals count as well. */
export function startAdvisor(
  service: Service,
  options: Partial<AdvisorOptions>,
  log: (message: string) => void,
  siblings: Siblings | null = null,
): Advisor {
  const { recorder } = service
  const ofAll = async () => together(await siblings!.askAll<ToldArrivals>(ARRIVALS, null), recorder.nowUs)
  const advisor = new Advisor(
    {
      ring: siblings === null ? recorder.ring : { copy: ofAll },
      setup: () => setupOf(service, siblings?.count),
      replicas: () => serving(service),
      nowUs: () => recorder.nowUs,
      log,
    },
    options,
  )
  advisor.start()
  return advisor
}

/** What `GET /v1/slo/arrivals` tells, where the server's processes recorded that; null while no replica is known. */
export function recordedFleet(service: Service, told: readonly ToldArrivals[]): RecordedFleet | null {
  const setup = setupOf(service, told.length)
  if (setup === null) return null
  const { nowUs } = service.recorder
  const copy = together(told, nowUs)
  const recording = { arrivals: arrivalsIn(copy), sinceUs: copy.sinceUs, nowUs }
  return { recording, setup, replicas: Math.max(1, serving(service)) }
}

/** Each has a clock of its own: `nowUs` is now on that of the whole. */
function together(told: readonly ToldArrivals[], nowUs: number): RingCopy {
  const [only, ...others] = told
  if (only !== undefined && others.length === 0) return only.copy
  return copiesTogether(told.map(({ copy, nowUs: own }) => movedCopy(copy, nowUs - own)))
}

/** Replicas that take requests. A front without a row is one itself. */
function serving({ front: { replicas } }: Service): number {
  return replicas.length === 0 ? 1 : replicas.filter(({ state }) => state === "ready").length
}

/** `processes`: each has its part of the queue. */
function setupOf({ front, classes }: Service, processes = 1): FleetSetup | null {
  const { planner } = front
  if (planner === null) return null
  const { calibration, speculation } = front.snapshot()
  const [decode = 1, mixed = 1] = calibration
  const rates = speculation.filter(({ draftedTokens }) => draftedTokens > 0)
  const acceptance = rates.reduce((sum, app) => sum + app.acceptance, 0) / rates.length
  return {
    ...planner,
    ...{ router: ROUTER, calibration: (decode + mixed) / 2, apps: classes.names.length },
    maxQueue: Math.max(1, processes * front.queue.limit),
    acceptance: rates.length > 0 ? acceptance : ACCEPTANCE,
  }
}
