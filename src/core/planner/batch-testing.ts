/** What the tests of the batch under construction share. */
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import type { PlanningContext, PlanningParts } from "./context.ts"

/** 256 tokens of KV in 16 blocks. */
export const SMALL = { ...LIMITS, kvTokens: 256, minChunkTokens: 1 }

export function batchOf(limits = LIMITS, parts: Partial<PlanningParts> = {}): BatchBuilder {
  const batch = new BatchBuilder(contextOf(limits, { margin: 0, ...parts }))
  batch.reset()
  return batch
}

/** It has computed so many tokens. */
export function begun(
  context: PlanningContext,
  id: number,
  tokens: number,
  changes: object = {},
): LiveRequest {
  const request = liveOf(id, changes)
  context.kv.attach(id, request.prefix, -1, null)
  context.kv.grow(id, tokens)
  context.kv.computed(id, tokens)
  return Object.assign(request, { computed: tokens, startedUs: 0 })
}

/** Its prompt is computed, and one token is out. */
export function decoding(context: PlanningContext, id: number, promptTokens = 100, changes: object = {}) {
  return Object.assign(begun(context, id, promptTokens, { promptTokens, ...changes }), { output: 1 })
}
