/** The scaling signal of a service: its arrivals, and what one more replica would be like. */
import type { RouterOptions } from "../router/router.ts"
import { Advisor, type AdvisorOptions } from "../scale/advisor.ts"
import { arrivalsIn } from "../scale/arrival-ring.ts"
import type { FleetSetup } from "../scale/play.ts"
import type { RecordedFleet } from "../scale/recording-file.ts"
import type { Service } from "./service.ts"

/** Where nothing was drafted yet. */
const ACCEPTANCE = 0.7

/** Recordings know one prefix a class, so a forecast routes by sessions and offers alone; real fleets look for prefixes as well. */
const ROUTER: RouterOptions = { kind: "offer", affinity: true, reoffers: 3 }

/** Begins forecasts; they end with the service. */
export function startAdvisor(
  service: Service,
  options: Partial<AdvisorOptions>,
  log: (message: string) => void,
): Advisor {
  const { recorder } = service
  const advisor = new Advisor(
    {
      ring: recorder.ring,
      setup: () => setupOf(service),
      replicas: () => serving(service),
      nowUs: () => recorder.nowUs,
      log,
    },
    options,
  )
  advisor.start()
  return advisor
}

/** What `GET /v1/slo/arrivals` tells; null while no replica is known. */
export function recordedFleet(service: Service): RecordedFleet | null {
  const setup = setupOf(service)
  if (setup === null) return null
  const { ring, nowUs } = service.recorder
  const copy = ring.copy()
  const recording = { arrivals: arrivalsIn(copy), sinceUs: copy.sinceUs, nowUs }
  return { recording, setup, replicas: Math.max(1, serving(service)) }
}

/** Replicas that take requests. A front without a row is one itself. */
function serving({ front: { replicas } }: Service): number {
  return replicas.length === 0 ? 1 : replicas.filter(({ state }) => state === "ready").length
}

function setupOf({ front, classes }: Service): FleetSetup | null {
  const { planner } = front
  if (planner === null) return null
  const { calibration, speculation } = front.snapshot()
  const [decode = 1, mixed = 1] = calibration
  const rates = speculation.filter(({ draftedTokens }) => draftedTokens > 0)
  const acceptance = rates.reduce((sum, app) => sum + app.acceptance, 0) / rates.length
  return {
    ...planner,
    ...{ router: ROUTER, calibration: (decode + mixed) / 2, apps: classes.names.length },
    maxQueue: Math.max(1, front.queue.limit),
    acceptance: rates.length > 0 ? acceptance : ACCEPTANCE,
  }
}
