/** What the last step says of the next. */
import { expect, test } from "vitest"
import { Random } from "../../random.ts"
import { MachineSpeed } from "./machine-speed.ts"

const STEP_US = 10_000

/** Steps without a pause, each so many times as long as usual; answers the last one's end. */
function run(speed: MachineSpeed, ratios: readonly number[], fromUs = 0): number {
  let nowUs = fromUs
  for (const ratio of ratios) speed.observe("decode", ratio, STEP_US, (nowUs += STEP_US))
  return nowUs
}

/** ln of each is `follows` times that of the one before, and noise. */
function series(count: number, follows: number, sigma: number, seed = 1): number[] {
  const random = new Random("series", seed)
  let x = 0
  return Array.from({ length: count }, () => {
    x = follows * x + sigma * random.normal()
    return Math.exp(x)
  })
}

test("steps that scatter independently say nothing of each other", () => {
  let claims = 0
  for (let seed = 0; seed < 20; seed++) {
    const speed = new MachineSpeed()
    const nowUs = run(speed, [...series(1000, 0, 0.1, seed), 1.3])
    if (Math.abs(speed.factor(nowUs) - 1) > 0.02) claims++
  }
  expect(claims).toBeLessThanOrEqual(1)
})

test("steps that come in slow and fast spells are followed, and then predicted better", () => {
  const speed = new MachineSpeed()
  let nowUs = 0
  const errors = { usual: 0, followed: 0 }
  for (const [i, ratio] of series(3000, 0.6, 0.1).entries()) {
    const error = (factor: number) => Math.log(ratio / factor) ** 2
    if (i > 500) {
      errors.usual += error(1)
      errors.followed += error(speed.factor(nowUs))
    }
    speed.observe("decode", ratio, STEP_US, (nowUs += STEP_US))
  }
  // At best 1 − 0.6² is left.
  expect(errors.followed / errors.usual).toBeLessThan(0.75)
})

test("a stall counts as twice as slow at most, and is forgotten in idle time", () => {
  const speed = new MachineSpeed()
  const nowUs = run(speed, [...series(1000, 0.9, 0.2), 1000])
  const after = speed.factor(nowUs)
  expect(after).toBeGreaterThan(1.3)
  expect(after).toBeLessThan(2 ** 0.8 + 1e-9)
  // A third of it, more or less, after a second.
  expect(Math.log(speed.factor(nowUs + 1_000_000)) / Math.log(after)).toBeCloseTo(Math.exp(-1))
  expect(speed.factor(nowUs + 60_000_000)).toBeCloseTo(1)
  const fast = new MachineSpeed()
  expect(fast.factor(run(fast, [...series(1000, 0.9, 0.2), 0.001]))).toBeLessThan(1 / 1.3)
})

test("a profile that is off is no spell: it is usual at once, for each kind", () => {
  for (const seed of [1, 2, 3]) {
    const speed = new MachineSpeed()
    let nowUs = 0
    for (const [i, noise] of series(300, 0, 0.1, seed).entries()) {
      const [kind, off] = i % 3 === 0 ? (["mixed", 0.4] as const) : (["decode", 2.5] as const)
      speed.observe(kind, off * noise, STEP_US, (nowUs += STEP_US))
      if (i > 20) expect(Math.abs(speed.factor(nowUs) - 1)).toBeLessThan(0.05)
    }
  }
})

test("spells are known though stalls come between", () => {
  const speed = new MachineSpeed()
  const ratios = series(1000, 0.6, 0.1).map((ratio, i) => (i % 50 === 0 ? 10 : ratio))
  expect(speed.factor(run(speed, [...ratios, 1, 1.3]))).toBeGreaterThan(1.08)
})

test("nothing is claimed of few steps, or of steps that are all as usual", () => {
  const few = new MachineSpeed()
  expect(few.factor(0)).toBe(1)
  expect(few.factor(run(few, [1.5, 1.5, 1.5]))).toBe(1)
  const same = new MachineSpeed()
  expect(same.factor(run(same, new Array(100).fill(1)))).toBe(1)
})

test("long steps are followed as short ones are: idle time counts from a step's beginning", () => {
  const speed = new MachineSpeed()
  let nowUs = 0
  for (const ratio of [...series(1000, 0.6, 0.1), 1.3])
    speed.observe("decode", ratio, 3_000_000, (nowUs += 3_000_000))
  expect(speed.factor(nowUs)).toBeGreaterThan(1.08)
})

test("what was so once fades: steps that scatter by now say nothing of each other", () => {
  const speed = new MachineSpeed()
  const nowUs = run(speed, [...series(1000, 0.9, 0.1), ...series(2000, 0, 0.1, 2), 1.3])
  expect(Math.abs(speed.factor(nowUs) - 1)).toBeLessThan(0.03)
})

test("a machine that is slower for good is as usual soon", () => {
  const speed = new MachineSpeed()
  const slower = series(300, 0.9, 0.02, 2).map((ratio) => 1.5 * ratio)
  const nowUs = run(speed, [...series(1000, 0.9, 0.02), ...slower, 1.5])
  expect(Math.abs(speed.factor(nowUs) - 1)).toBeLessThan(0.06)
})
