/** A gateway before simulated replicas: with nothing in the way it decides as the fleet simulator does; with faults no client
 * misses anything. `npm run sim:fuzz:gateway -- --seeds N` plays more. */
import { describe, expect, test } from "vitest"
import type { Effect, RequestId } from "../core/protocol.ts"
import { simulateFleet } from "./fleet.ts"
import { fuzzCase } from "./fuzz-case.ts"
import { simulateGateway } from "./gateway.ts"
import { fuzzGateway } from "./gateway-fuzz.ts"
import type { GatewayOptions } from "./gateway-options.ts"

/** As the fleet simulator has it: nothing is silent, nothing ages, all is answered at once. */
const NO_HURRY: NonNullable<GatewayOptions["dispatch"]> = {
  health: { silenceUs: Infinity, stepUs: Infinity },
  times: { freshUs: Infinity },
}

const line = (effect: Effect, nowUs: number, replica: number, id: RequestId) =>
  `${nowUs} ${replica} ${id} ${JSON.stringify("id" in effect ? { ...effect, id } : effect)}`

function bothLogs(seed: number, reoffers: number): { fleet: string[]; gateway: string[] } {
  const { fleet: options } = fuzzCase(seed)
  const { disaggregated: _, faults: __, ...rest } = options
  const plain = { ...rest, check: false, router: { ...options.router, reoffers } }
  const fleet: string[] = []
  simulateFleet({
    ...plain,
    onEffect: (effect, nowUs, replica) =>
      fleet.push(line(effect, nowUs, replica, "id" in effect ? effect.id : -1)),
  })
  const { follow } = fuzzCase(seed).fleet
  const gateway: string[] = []
  simulateGateway({
    ...{ ...plain, dispatch: NO_HURRY, ...(follow && { follow }) },
    onEffect: (effect, nowUs, replica, id) => gateway.push(line(effect, nowUs, replica, id)),
  })
  return { fleet, gateway }
}

describe("without latency and faults", () => {
  test("every effect of every replica is that of the fleet simulator, whatever the router", () => {
    for (let seed = 1; seed <= 25; seed++) {
      const { fleet, gateway } = bothLogs(seed, 0)
      expect(gateway, `seed ${seed}`).toEqual(fleet)
    }
  })
})

describe("with faults", () => {
  test("every request ends once, no token is lost or comes twice, none is at two replicas, nothing is kept", () => {
    let faults = 0
    for (let seed = 1; seed <= 150; seed++) {
      const run = fuzzGateway(seed)
      expect(run.failure).toBeNull()
      faults += run.faults
    }
    // That these say something.
    expect(faults).toBeGreaterThan(700)
  }, 120_000)
})
