/** The status of several processes as one. */
import { expect, test } from "vitest"
import type { StatusJson } from "./status.ts"
import { summedStatus } from "./summed-status.ts"

const ratio = (total: number, attained: number) => ({ total, attained })

function status(by: number): StatusJson {
  const window = {
    requests: ratio(2 * by, by),
    stages: { prefill: ratio(2 * by, by), thinking: ratio(0, 0), answer: ratio(2 * by, by) },
    ...{ bestEffort: by, demoted: 0, outputTokens: 10 * by },
  }
  const tenant = (name: string) => ({
    ...{ name, weight: 3, live: by, requests: ratio(by, by) },
    ...{ best_effort: by, refused: 0, prompt_tokens: by, output_tokens: by },
  })
  return {
    ...{ phase: "ready", policy: "gateway", uptime_s: by, tokens_per_sec: by, requests_per_sec: by },
    requests: { running: 5 + by, waiting: 1, best_effort: 0 },
    kv: { used_tokens: 100, cached_tokens: 0, capacity_tokens: 1000 },
    prefill_backlog_tokens: by,
    tenants: by === 1 ? [tenant("alice")] : [tenant("alice"), tenant("bob")],
    classes: [{ name: "chat", window }],
    replicas: [{ name: "gpu-1" }],
  } as unknown as StatusJson
}

test("what each counts is added up, of the backends there is one view", () => {
  const sum = summedStatus([status(1), status(2)])
  expect(sum).toMatchObject({
    ...{ uptime_s: 2, tokens_per_sec: 3, requests_per_sec: 3, prefill_backlog_tokens: 2 },
    requests: { running: 7, waiting: 1 },
    kv: { used_tokens: 100, capacity_tokens: 1000 },
    replicas: [{ name: "gpu-1" }],
  })
  expect(sum.classes[0]!.window).toEqual({
    requests: ratio(6, 3),
    stages: { prefill: ratio(6, 3), thinking: ratio(0, 0), answer: ratio(6, 3) },
    ...{ bestEffort: 3, demoted: 0, outputTokens: 30 },
  })
  expect(sum.tenants.map(({ name, weight, live }) => [name, weight, live])).toEqual([
    ["alice", 3, 3],
    ["bob", 3, 2],
  ])
})

test("of one process it is its own", () => {
  const one = status(1)
  expect(summedStatus([one])).toBe(one)
})
