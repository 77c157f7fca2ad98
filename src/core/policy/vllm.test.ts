/** The first-come-first-served baselines: what they put in a batch, and what gives way when KV is full. */
import { describe, expect, test } from "vitest"
import type { Batch } from "../protocol.ts"
import { Played } from "../replica-testing.ts"
import { LIMITS } from "../testing.ts"
import type { PolicyName } from "./index.ts"

/** [id, tokens] of each item, in order. */
const shapeOf = (batch: Batch) => batch.items.map(({ id, tokens }) => [id, tokens])
const limits = { ...LIMITS, minChunkTokens: 1 }
const playedBy = (policy: PolicyName, options: object, changes: object = {}) =>
  new Played({ policy, options, limits: { ...limits, ...changes } })
const preempted = (played: Played) => played.of("preempted").map(({ id }) => id)

describe("vllm", () => {
  test("decodes first, then prompts under way, then new ones, within the token budget", () => {
    const played = playedBy("vllm", { tokenBudget: 50 })
    played.arrives(1, { promptTokens: 40 })
    expect(shapeOf(played.step())).toEqual([[1, 40]])
    for (const id of [2, 3]) played.arrives(id, { promptTokens: 60 })
    played.arrives(4, { promptTokens: 5 })
    expect(shapeOf(played.step())).toEqual([
      [1, 1],
      [2, 49],
    ])
    expect(shapeOf(played.step())).toEqual([
      [1, 1],
      [2, 11],
      [3, 38],
    ])
    // A decode for each of the first two; the third goes on before the fourth begins.
    expect(shapeOf(played.step())).toEqual([
      [1, 1],
      [2, 1],
      [3, 22],
      [4, 5],
    ])
  })

  test("a prompt that finds no KV holds up those after it, even one that would", () => {
    const tight = { kvTokens: 128, contextTokens: 128, minChunkTokens: 64 }
    const played = playedBy("vllm", { tokenBudget: 500 }, tight)
    played.arrives(1, { promptTokens: 64, maxOutputTokens: 3 })
    played.step()
    // Three blocks are left: less than a chunk of the second, enough for the third.
    played.arrives(2, { promptTokens: 100, maxOutputTokens: 20 })
    played.arrives(3, { promptTokens: 8 })
    for (let i = 0; i < 2; i++) expect(shapeOf(played.step())).toEqual([[1, 1]])
    expect(shapeOf(played.step())).toEqual([
      [2, 100],
      [3, 8],
    ])
  })

  test("fills its budget to the last token", () => {
    const played = playedBy("vllm", { tokenBudget: 41 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 40 })
    expect(shapeOf(played.step())).toEqual([
      [1, 40],
      [2, 1],
    ])
  })

  test("prompts that began take KV from later ones, not from earlier ones", () => {
    const played = playedBy("vllm", { tokenBudget: 64 }, { kvTokens: 128, contextTokens: 128 })
    played.arrives(1, { promptTokens: 100, maxOutputTokens: 20 })
    played.step()
    played.arrives(2, { promptTokens: 40 })
    expect(shapeOf(played.step())).toEqual([
      [1, 36],
      [2, 16],
    ])
    for (let i = 0; i < 13; i++) played.step()
    expect(preempted(played)).toEqual([2])
  })

  test("drafts a fixed number of tokens, as far as every decode still finds room", () => {
    const played = playedBy("vllm", { fixedDraft: 3 }, { maxBatchTokens: 64 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 20 })
    played.step()
    expect(played.step().items.map(({ draft }) => draft)).toEqual([3, 3])
    const narrow = playedBy("vllm", { fixedDraft: 3 }, { maxBatchTokens: 6 })
    for (const id of [1, 2, 3]) narrow.arrives(id, { promptTokens: 2 })
    narrow.step()
    expect(narrow.step().items.map(({ draft }) => draft)).toEqual([3, 0, 0])
  })
})

describe("vllm-prefill-first", () => {
  test("prompts alone while some wait, whole ones; then all decodes", () => {
    const played = playedBy("vllm-prefill-first", { tokenBudget: 100 })
    for (const [id, promptTokens] of [
      [1, 60],
      [2, 40],
      [3, 10],
    ] as const)
      played.arrives(id, { promptTokens })
    expect(shapeOf(played.step())).toEqual([
      [1, 60],
      [2, 40],
    ])
    expect(shapeOf(played.step())).toEqual([[3, 10]])
    expect(shapeOf(played.step())).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
    ])
    // 41 tokens do not go into what is left of the budget.
    for (const [id, promptTokens] of [
      [4, 60],
      [5, 41],
      [6, 10],
    ] as const)
      played.arrives(id, { promptTokens })
    expect(shapeOf(played.step())).toEqual([[4, 60]])
    expect(shapeOf(played.step())).toEqual([
      [5, 41],
      [6, 10],
    ])
  })

  test("of what others have computed a prompt needs only the rest", () => {
    const played = playedBy("vllm-prefill-first", { tokenBudget: 100 })
    played.arrives(1, { promptTokens: 60, prefix: [1, 2, 3] })
    played.step()
    played.arrives(2, { promptTokens: 60 })
    // 48 tokens of it are there.
    played.arrives(3, { promptTokens: 88, prefix: [1, 2, 3, 4] })
    played.arrives(4, { promptTokens: 1 })
    expect(shapeOf(played.step())).toEqual([
      [2, 60],
      [3, 40],
    ])
    played.arrives(5, { promptTokens: 98 })
    played.arrives(6, { promptTokens: 1 })
    expect(shapeOf(played.step())).toEqual([
      [4, 1],
      [5, 98],
      [6, 1],
    ])
  })

  test("one longer than the budget goes in pieces, alone", () => {
    const played = playedBy("vllm-prefill-first", { tokenBudget: 50 })
    played.arrives(1, { promptTokens: 70 })
    played.arrives(2, { promptTokens: 40 })
    expect(shapeOf(played.step())).toEqual([[1, 50]])
    expect(shapeOf(played.step())).toEqual([[1, 20]])
    expect(shapeOf(played.step())).toEqual([[2, 40]])
  })

  test("a prompt that finds no KV lets the decodes run", () => {
    const played = playedBy("vllm-prefill-first", {}, { kvTokens: 128, contextTokens: 128 })
    played.arrives(1, { promptTokens: 112, maxOutputTokens: 10 })
    played.step()
    played.arrives(2, { promptTokens: 100, maxOutputTokens: 10 })
    expect(shapeOf(played.step())).toEqual([[2, 16]])
    expect(shapeOf(played.step())).toEqual([[1, 1]])
  })

  test("drafts like vllm", () => {
    const played = playedBy("vllm-prefill-first", { fixedDraft: 3 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 20 })
    played.step()
    expect(played.step().items.map(({ draft }) => draft)).toEqual([3, 3])
  })
})

describe("sarathi", () => {
  const slo = (tpotUs: number) => ({
    ttftUs: 1e6,
    ttftSlowdown: 0,
    maxGapUs: Infinity,
    tpotUs,
    thinkingTpotUs: tpotUs,
  })

  test("chunks fill the batch up to the tightest TPOT of the decodes, four longest batches without any", () => {
    const played = playedBy("sarathi", { margin: 0, maxBatchUs: 10_000 }, { maxBatchTokens: 2000 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 10, slo: slo(id * 15_000) })
    played.step()
    played.arrives(3, { promptTokens: 500 })
    // 15 ms: 5 ms, and 100 tokens.
    expect(shapeOf(played.step())).toEqual([
      [1, 1],
      [2, 1],
      [3, 98],
    ])
    const alone = playedBy("sarathi", { margin: 0, maxBatchUs: 10_000 }, { maxBatchTokens: 2000 })
    alone.arrives(3, { promptTokens: 500, slo: slo(15_000) })
    expect(shapeOf(alone.step())).toEqual([[3, 350]])
  })

  test("what is under way goes on before new prompts, in order of arrival", () => {
    const played = playedBy("sarathi", { margin: 0, maxBatchUs: 5_000 })
    // Only decodes have a pace to keep.
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 200, slo: slo(6_000) })
    expect(shapeOf(played.step())).toEqual([[1, 150]])
    expect(shapeOf(played.step())).toEqual([
      [1, 50],
      [2, 100],
    ])
  })

  test("runs the first request where not even a least chunk fits", () => {
    const played = playedBy("sarathi", { margin: 0, maxBatchUs: 1_000 }, { minChunkTokens: 64 })
    for (const id of [1, 2]) played.arrives(id, { promptTokens: 200 })
    expect(shapeOf(played.step())).toEqual([[1, 65]])
  })

  test("drafts like vllm", () => {
    const played = playedBy("sarathi", { fixedDraft: 3 })
    played.arrives(1, { promptTokens: 20 })
    played.step()
    expect(played.step().items.map(({ draft }) => draft)).toEqual([3])
  })
})
