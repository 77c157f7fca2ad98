/** Metrics of several processes as one page. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client"
import { expect, test } from "vitest"
import { parentProcess } from "./parent-process.ts"
import { type MetricsJson, SummedMetrics } from "./summed-metrics.ts"
import { TallyHistogram } from "./tally.ts"

function processOf() {
  const registry = new Registry()
  const registers = [registry]
  return {
    registry,
    ended: new Counter({ name: "ended_total", help: "Ended.", labelNames: ["class"], registers }),
    places: new Gauge({ name: "places", help: "Each one's own.", registers }),
    running: new Gauge({ name: "running", help: "Of all.", aggregator: "max", registers }),
    seconds: new TallyHistogram({ name: "seconds", help: "Took.", registry }, [1, 2]),
  }
}

function together() {
  const all = new Map([0, 1].map((index) => [index, processOf()]))
  const summed = new SummedMetrics(async () =>
    Promise.all(
      [...all].map(async ([from, { registry }]) => ({
        from,
        value: structuredClone(await registry.getMetricsAsJSON()) as MetricsJson,
      })),
    ),
  )
  return { all, summed, text: async () => (await summed.page()).text }
}

test("counts are added up by their labels, as are places; what all see is not", async () => {
  const { all, text } = together()
  const [one, other] = [...all.values()]
  one!.ended.inc({ class: "chat" }, 3)
  other!.ended.inc({ class: "chat" }, 4)
  other!.ended.inc({ class: "tool" }, 1)
  for (const { places, running } of all.values()) {
    places.set(50)
    running.set(7)
  }
  one!.seconds.observe(0.5)
  other!.seconds.observe(1.5, 2)
  const page = await text()
  expect(page).toContain('ended_total{class="chat"} 7')
  expect(page).toContain('ended_total{class="tool"} 1')
  expect(page).toContain("\nplaces 100\n")
  expect(page).toContain("\nrunning 7\n")
  expect(page).toContain('seconds_bucket{le="1"} 1')
  expect(page).toContain('seconds_bucket{le="+Inf"} 3')
  expect(page).toContain("seconds_sum 3.5")
  expect(page).toContain("seconds_count 3")
  expect(page.match(/# TYPE ended_total counter/g)).toHaveLength(1)
})

test("what their parent takes is part of it, and nothing else of it is", async () => {
  const { all } = together()
  const values = [...all].map(async ([from, { registry, places }]) => {
    places.set(50)
    collectDefaultMetrics({ register: registry })
    return { from, value: structuredClone(await registry.getMetricsAsJSON()) as MetricsJson }
  })
  const said = await Promise.all(values)
  const own = parentProcess()
  const parent = new Counter({ name: "ended_total", help: "Ended.", labelNames: ["class"], registers: [own] })
  parent.inc({ class: "chat" }, 5)
  const shown = async (registry?: Registry) => {
    const { text } = await new SummedMetrics(async () => said, registry).page()
    return (name: string) => Number(text.match(new RegExp(`^${name} (.+)`, "m"))?.[1])
  }
  const [without, withIt] = [await shown(), await shown(own)]
  expect(withIt('ended_total{class="chat"}')).toBe(5)
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes"])
    expect(withIt(name)).toBeGreaterThan(without(name))
  for (const name of ["nodejs_heap_size_used_bytes", "nodejs_eventloop_lag_mean_seconds", "places"])
    expect(withIt(name)).toBe(without(name))
})

test("what one counted that is gone stays as it was shown; what it was like does not", async () => {
  const { all, summed, text } = together()
  const [one, other] = [...all.values()]
  one!.ended.inc({ class: "chat" }, 3)
  other!.ended.inc({ class: "chat" }, 4)
  one!.places.set(50)
  other!.places.set(50)
  expect(await text()).toContain('ended_total{class="chat"} 7')
  // Never shown, and gone with it.
  other!.ended.inc({ class: "chat" }, 100)
  for (let death = 0; death < 3; death++) {
    all.delete(1)
    summed.left(1)
    expect(await text()).toContain(`ended_total{class="chat"} ${7 + death}`)
    expect(await text()).toContain("\nplaces 50\n")
    const again = processOf()
    again.ended.inc({ class: "chat" }, 1)
    all.set(1, again)
    expect(await text()).toContain(`ended_total{class="chat"} ${8 + death}`)
  }
})

test("one that ends while the page is made is not counted twice", async () => {
  const one = processOf()
  one.ended.inc({ class: "chat" }, 5)
  const value = (await one.registry.getMetricsAsJSON()) as MetricsJson
  let dies = false
  const summed: SummedMetrics = new SummedMetrics(async () => {
    if (dies) summed.left(1)
    return [{ from: 1, value }]
  })
  expect((await summed.page()).text).toContain('ended_total{class="chat"} 5')
  dies = true
  expect((await summed.page()).text).toContain('ended_total{class="chat"} 5')
})
