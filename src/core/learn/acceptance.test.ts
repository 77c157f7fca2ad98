/** The acceptance estimate: finds the true rate though longer drafts are censored, follows it, and comes back. */
import { describe, expect, test } from "vitest"
import { Random } from "../../random.ts"
import { Acceptance, expectedRows, expectedTokens } from "./acceptance.ts"

function draws(estimate: Acceptance, alpha: number, steps: number, draft: number, seed = 1): void {
  const random = new Random(seed)
  for (let i = 0; i < steps; i++) {
    let accepted = 0
    while (accepted < draft && random.uniform() < alpha) accepted++
    estimate.observe(0, draft, accepted + 1, false)
  }
}

describe("acceptance", () => {
  test.each([0.2, 0.5, 0.9])("finds %s whatever was drafted", (alpha) => {
    for (const draft of [1, 3, 7]) {
      const estimate = new Acceptance(0.7)
      draws(estimate, alpha, 2000, draft)
      expect(Math.abs(estimate.of(0) - alpha)).toBeLessThan(0.06)
    }
  })

  test("starts from the prior, keeps apps apart and stays within bounds", () => {
    const estimate = new Acceptance(0.7)
    expect(estimate.of(0)).toBe(0.7)
    draws(estimate, 0, 5000, 4)
    expect(estimate.of(0)).toBeLessThan(0.1)
    expect(estimate.of(0)).toBeGreaterThanOrEqual(0.05)
    expect(estimate.of(1)).toBe(0.7)
    draws(estimate, 1, 5000, 4)
    expect(estimate.of(0)).toBeGreaterThan(0.95)
    expect(estimate.of(0)).toBeLessThanOrEqual(0.98)
  })

  test("does not take the end of an answer for a refusal", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 100; i++) estimate.observe(0, 4, 1, true)
    expect(estimate.of(0)).toBe(0.7)
  })

  test("drifts back to the prior while nothing is drafted, so that it is tried again", () => {
    const estimate = new Acceptance(0.7)
    draws(estimate, 0.05, 1000, 3)
    const low = estimate.of(0)
    for (let i = 0; i < 2000; i++) estimate.observe(0, 0, 1, false)
    expect(estimate.of(0)).toBeGreaterThan(low)
    expect(estimate.of(0)).toBeLessThan(0.3)
    for (let i = 0; i < 60_000; i++) estimate.observe(0, 0, 1, false)
    expect(estimate.of(0)).toBeGreaterThan(0.6)
  })
})

describe("a drafter that has no idea at times", () => {
  test("is not refused then: the acceptance is that of what it offers", () => {
    const estimate = new Acceptance(0.7)
    const random = new Random(3)
    for (let i = 0; i < 4000; i++) {
      if (random.uniform() < 0.25) draws(estimate, 0.9, 1, 4, i)
      else estimate.observe(0, 4, 1, false, 0)
    }
    expect(Math.abs(estimate.of(0) - 0.9)).toBeLessThan(0.06)
    expect(Math.abs(estimate.hitRate(0) - 0.25)).toBeLessThan(0.08)
    expect(estimate.hitRate(1)).toBe(1)
  })

  test("shorter offers count as far as they go, and the rate follows what the drafter does", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 1000; i++) estimate.observe(0, 6, 4, false, 3)
    expect(estimate.hitRate(0)).toBeCloseTo(0.5, 1)
    // All that was offered was accepted.
    expect(estimate.of(0)).toBeGreaterThan(0.95)
    for (let i = 0; i < 1000; i++) estimate.observe(0, 6, 1, false, 0)
    expect(estimate.hitRate(0)).toBeLessThan(0.05)
    expect(estimate.hitRate(0)).toBeGreaterThan(0)
  })

  test("waiting for an idea is not going without drafts: nothing fades", () => {
    const estimate = new Acceptance(0.7)
    draws(estimate, 0.95, 1000, 3)
    const high = estimate.of(0)
    for (let i = 0; i < 20_000; i++) estimate.observe(0, 3, 1, false, 0)
    expect(estimate.of(0)).toBe(high)
  })

  test("without drafts it is forgotten: a drafter of new text is asked again", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 1000; i++) estimate.observe(0, 3, 1, false, i % 10 === 0 ? 3 : 0)
    expect(estimate.hitRate(0)).toBeLessThan(0.15)
    for (let i = 0; i < 100_000; i++) estimate.observe(0, 0, 1, false)
    expect(estimate.hitRate(0)).toBeGreaterThan(0.5)
  })

  test("one that always answers has a rate of exactly 1, and counts as before", () => {
    const estimate = new Acceptance(0.7)
    draws(estimate, 0.6, 3000, 5)
    expect(estimate.hitRate(0)).toBe(1)
    for (const s of [1, 2, 5, 8]) {
      expect(expectedTokens(estimate.of(0), s, 1)).toBe(
        s === 1 ? 1 : (1 - estimate.of(0) ** s) / (1 - estimate.of(0)),
      )
      expect(expectedRows(s, 1)).toBe(s)
      expect(expectedTokens(0.7, s, 0.5)).toBeCloseTo((1 + expectedTokens(0.7, s)) / 2)
      expect(expectedRows(s, 0.5)).toBeCloseTo((1 + s) / 2)
    }
  })
})

test("tries that fail come ever less often, and as often as at first once one has done well", () => {
  const estimate = new Acceptance(0.7)
  /** Undrafted tokens until drafting is worth a try again, which then sees `alpha` for `steps` steps. */
  const wait = (alpha: number, steps: number): number => {
    let tokens = 0
    while (estimate.of(0) < 0.3) {
      estimate.observe(0, 0, 1, false)
      tokens++
    }
    draws(estimate, alpha, steps, 3)
    return tokens
  }
  draws(estimate, 0, 120, 3)
  const waits = Array.from({ length: 6 }, () => wait(0, 40))
  for (let i = 1; i < waits.length; i++) expect(waits[i]).toBeGreaterThan(1.5 * waits[i - 1]!)
  wait(0.9, 120)
  for (let i = 0; i < 200; i++) estimate.observe(0, 0, 1, false)
  draws(estimate, 0, 1000, 3)
  const again = wait(0, 40)
  expect(again).toBeGreaterThan(0)
  expect(again).toBeLessThan(waits.at(-1)! / 4)
})

test("expected tokens of a verification are the mean of the censored run", () => {
  expect(expectedTokens(0.7, 1)).toBe(1)
  expect(expectedTokens(0.5, 3)).toBeCloseTo(1.75)
  expect(expectedTokens(0.7, 4)).toBeCloseTo(1 + 0.7 + 0.49 + 0.343)
})

describe("evidence", () => {
  const of = (accepted: number, trials: number) => (0.7 * 50 + accepted) / (50 + trials)

  test("is what was accepted, and the first refusal after it", () => {
    const estimate = new Acceptance(0.7)
    estimate.observe(0, 4, 3, false)
    expect(estimate.of(0)).toBeCloseTo(of(2, 3))
    // All accepted: no refusal.
    estimate.observe(0, 4, 5, false)
    expect(estimate.of(0)).toBeCloseTo(of(6, 7))
    // It ended within its drafts.
    estimate.observe(0, 4, 2, true)
    expect(estimate.of(0)).toBeCloseTo(of(7, 8))
  })

  test("weighs no more than a thousand trials: the older ones lose", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 250; i++) estimate.observe(0, 4, 5, false)
    expect(estimate.of(0)).toBe(0.98)
    for (let i = 0; i < 1000; i++) estimate.observe(0, 4, 1, false)
    // Each refusal takes the share of one in 1,001 from what was there.
    expect(estimate.of(0)).toBeCloseTo((35 + 1000 * (1000 / 1001) ** 1000) / 1050, 3)
  })

  test("fades with every undrafted token, by one in four thousand", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 500; i++) estimate.observe(0, 1, 2, false)
    for (let i = 0; i < 4000; i++) estimate.observe(0, 0, 1, false)
    // Done well before, so it is not patience that it needs.
    const left = 500 * (1 - 1 / 4000) ** 4000
    expect(estimate.of(0)).toBeCloseTo(of(left, left), 3)
  })

  test("of a try that failed fades half as fast after a hundred undrafted tokens", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 500; i++) estimate.observe(0, 1, 1, false)
    for (let i = 0; i < 2099; i++) estimate.observe(0, 0, 1, false)
    const left = 500 * (1 - 1 / 4000) ** 99 * (1 - 1 / 8000) ** 2000
    expect(estimate.of(0)).toBeCloseTo(of(0, left), 3)
    // Drafted again within the hundred, it is still the same try.
    const again = new Acceptance(0.7)
    for (let i = 0; i < 500; i++) again.observe(0, 1, 1, false)
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 99; i++) again.observe(0, 0, 1, false)
      again.observe(0, 1, 1, false)
    }
    let trials = 500
    for (let round = 0; round < 20; round++) trials = trials * (1 - 1 / 4000) ** 99 + 1
    expect(again.of(0)).toBeCloseTo(of(0, trials), 4)
  })

  test("of a try is judged by itself, not by those before it", () => {
    const estimate = new Acceptance(0.7)
    const quiet = (tokens: number) => {
      for (let i = 0; i < tokens; i++) estimate.observe(0, 0, 1, false)
    }
    for (let i = 0; i < 200; i++) estimate.observe(0, 1, 1, false)
    quiet(100)
    // Seven of ten is as good as the prior: fading is as fast as at first.
    for (let i = 0; i < 10; i++) estimate.observe(0, 1, i < 7 ? 2 : 1, false)
    quiet(4100)
    const fade = (tokens: number, patience: number) => (1 - 1 / 4000 / patience) ** tokens
    const later = fade(99, 2) * fade(4001, 1)
    const refused = 200 * fade(99, 1) * fade(1, 2) + 3
    expect(estimate.of(0)).toBeCloseTo(of(7 * later, (7 + refused) * later), 6)
  })

  test("of a try with less accepted than the prior says is of one that failed", () => {
    const fadedAfter = (accepted: number) => {
      const estimate = new Acceptance(0.7)
      for (let i = 0; i < 10; i++) estimate.observe(0, 1, i < accepted ? 2 : 1, false)
      for (let i = 0; i < 8099; i++) estimate.observe(0, 0, 1, false)
      return estimate.of(0)
    }
    const left = (patience: number) => (1 - 1 / 4000) ** 99 * (1 - 1 / 4000 / patience) ** 8000
    expect(fadedAfter(6)).toBeCloseTo(of(6 * left(2), 10 * left(2)), 6)
    expect(fadedAfter(8)).toBeCloseTo(of(8 * left(1), 10 * left(1)), 6)
  })

  test("does not begin with undrafted tokens", () => {
    const estimate = new Acceptance(0.7)
    for (let i = 0; i < 1000; i++) estimate.observe(0, 0, 1, false)
    estimate.observe(0, 1, 1, false)
    expect(estimate.of(0)).toBeCloseTo(of(0, 1))
    expect(estimate.hitRate(0)).toBe(1)
  })
})

test("what was on offer fades like the evidence while nothing is drafted", () => {
  const estimate = new Acceptance(0.7)
  estimate.observe(0, 100, 51, false, 50)
  for (let i = 0; i < 99; i++) estimate.observe(0, 0, 1, false)
  const left = (1 - 1 / 4000) ** 99
  expect(estimate.hitRate(0)).toBeCloseTo((20 + 50 * left) / (20 + 100 * left), 9)
})

test("what was on offer weighs no more than a thousand tokens asked for, and is believed to be all before any", () => {
  const estimate = new Acceptance(0.7)
  estimate.observe(0, 5, 1, false, 0)
  expect(estimate.hitRate(0)).toBeCloseTo(20 / 25)
  expect(estimate.of(0)).toBe(0.7)
  estimate.observe(0, 5, 3, false, 3)
  expect(estimate.hitRate(0)).toBeCloseTo(23 / 30)
  for (let i = 0; i < 10_000; i++) estimate.observe(0, 5, 1, false, 0)
  expect(estimate.hitRate(0)).toBeCloseTo(20 / 1020)
})
