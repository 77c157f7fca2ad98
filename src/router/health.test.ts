/** Silent, stuck and failing replicas, and when dead ones are started again. */
import { expect, test } from "vitest"
import { HEALTH_DEFAULTS, Health, Restarts } from "./health.ts"
import { IDLE } from "./testing.ts"

const { silenceUs, stepUs, ejectUs, longestEjectUs } = HEALTH_DEFAULTS

test("silent after so long without a word, whatever it was", () => {
  const health = new Health(HEALTH_DEFAULTS, 0)
  expect(health.verdict(silenceUs - 1)).toBeNull()
  expect(health.verdictDueUs).toBe(silenceUs)
  expect(health.verdict(silenceUs)).toBe("silent")
  health.heard(silenceUs)
  expect(health.verdict(2 * silenceUs - 1)).toBeNull()
})

test("stuck when a step that is under way changes nothing for longer than any step", () => {
  const health = new Health(HEALTH_DEFAULTS, 0)
  const busy = { ...IDLE, batchInFlight: true, running: 3, kvUsedTokens: 500 }
  const told = (atUs: number, changes = {}) => health.told({ ...busy, ...changes }, atUs)
  for (let atUs = 0; atUs < stepUs; atUs += 1_000_000) told(atUs)
  expect(health.verdict(stepUs - 1)).toBeNull()
  told(stepUs)
  expect(health.verdict(stepUs)).toBe("stuck")
  told(stepUs, { kvUsedTokens: 516 })
  expect(health.verdict(stepUs)).toBeNull()
  // Between steps nothing is stuck.
  for (let atUs = stepUs; atUs <= 3 * stepUs; atUs += 1_000_000) told(atUs, { batchInFlight: false })
  expect(health.verdict(3 * stepUs)).toBeNull()
})

test("left out after failures in a row, longer each time, until it has behaved for as long", () => {
  const health = new Health(HEALTH_DEFAULTS, 0)
  const failTill = (nowUs: number) => {
    while (!health.failed(1));
    health.eject(nowUs)
  }
  for (let i = 0; i < HEALTH_DEFAULTS.failures - 1; i++) expect(health.failed(1)).toBe(false)
  health.succeeded(0)
  expect(health.failed(1)).toBe(false)
  failTill(0)
  expect(health.probeAtUs).toBe(ejectUs)
  expect(health.probed(true, ejectUs)).toBe(false)
  expect(health.probed(true, ejectUs)).toBe(true)
  failTill(ejectUs)
  expect(health.probeAtUs).toBe(ejectUs + 2 * ejectUs)
  // A bad probe: out again.
  expect(health.probed(false, 3 * ejectUs)).toBe(false)
  expect(health.probeAtUs).toBe(3 * ejectUs + 4 * ejectUs)
  for (let i = 0; i < 20; i++) health.eject(0)
  expect(health.probeAtUs).toBe(longestEjectUs)
  health.probed(true, 0)
  health.probed(true, 0)
  health.succeeded(3 * longestEjectUs)
  failTill(0)
  expect(health.probeAtUs).toBe(ejectUs)
})

test("nonsense is as bad as several failures", () => {
  expect(new Health(HEALTH_DEFAULTS, 0).failed(HEALTH_DEFAULTS.failures)).toBe(true)
})

test("started again at once after a long life, later and later where it dies over and over", () => {
  const options = { firstUs: 100, longestUs: 1000, stableUs: 10_000 }
  const restarts = new Restarts(options)
  const pauses = (chance: number) => Array.from({ length: 8 }, () => restarts.died(0, chance))
  expect(pauses(1)).toEqual([0, 100, 200, 400, 800, 1000, 1000, 1000])
  expect(restarts.died(0, 0)).toBe(500)
  restarts.up(0)
  expect(restarts.died(9_999, 1)).toBe(9_999 + 1000)
  restarts.up(20_000)
  expect(restarts.died(30_000, 1)).toBe(30_000)
  expect(restarts.row).toBe(1)
  // A row without end does not overflow.
  for (let i = 0; i < 5000; i++) restarts.died(0, 0.5)
  expect(restarts.died(0, 1)).toBe(1000)
})
