/** Tallies say what prom-client's own metrics would. */
import fc from "fast-check"
import { Counter, Histogram, Registry } from "prom-client"
import { expect, it } from "vitest"
import { TallyCounter, TallyHistogram } from "./tally.ts"

const labels = { model_name: 'a "b" \\ c' }
const [name, help] = ["x:y_seconds", "How long."]

it("tells a histogram as prom-client does", async () => {
  const values = fc.array(fc.oneof(fc.constantFrom(0.1, 0.5, 1), fc.double({ min: 0, max: 3, noNaN: true })))
  await fc.assert(
    fc.asyncProperty(values, fc.nat(3), async (seen, times) => {
      const [registry, theirs] = [new Registry(), new Registry()]
      const tally = new TallyHistogram({ name, help, labels, registry }, [0.1, 0.5, 1])
      const histogram = new Histogram({
        ...{ name, help, labelNames: ["model_name"], buckets: [0.1, 0.5, 1] },
        registers: [theirs],
      })
      histogram.zero(labels)
      for (const value of seen) {
        tally.observe(value)
        histogram.observe(labels, value)
      }
      tally.observe(0.25, times)
      for (let i = 0; i < times; i++) histogram.observe(labels, 0.25)
      const [own, other] = [await registry.metrics(), await theirs.metrics()]
      expect(withoutSum(own)).toBe(withoutSum(other))
      expect(sumOf(own)).toBeCloseTo(sumOf(other), 9)
    }),
    { numRuns: 50 },
  )
})

it("tells a counter as prom-client does", async () => {
  const [registry, theirs] = [new Registry(), new Registry()]
  const tally = new TallyCounter({ name, help, registry })
  const counter = new Counter({ name, help, registers: [theirs] })
  expect(await registry.metrics()).toBe(await theirs.metrics())
  tally.inc()
  tally.inc(2.5)
  counter.inc(3.5)
  expect(await registry.metrics()).toBe(await theirs.metrics())
  expect(() => new TallyCounter({ name, help, registry })).toThrow(/already/)
})

const SUM = /_sum\{[^}]*\} (.*)$/m
const withoutSum = (text: string) => text.replace(SUM, "")
const sumOf = (text: string) => Number(SUM.exec(text)![1])
