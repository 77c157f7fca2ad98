/** What a router must know of a job whose prompt is text yet: chain keys of how it begins, and about how long it is. */

import type { Generation, Prompt } from "../replica/generation.ts"
import type { Routed } from "../router/target.ts"
import { PrefixHasher } from "../serve/prefix.ts"

/** Text that counts as one token, in UTF-16 units. */
const UNITS_PER_TOKEN = 4
/** Tokens that a key stands for: as the router's `keyTokens`. */
const KEY_TOKENS = 16
/** What a prompt begins with is told by so much of it: hashing a whole book would hold up all others. */
const MOST_UNITS = 128 * 1024

export function routedOf({ prompt, tenant, session }: Generation): Routed {
  const salt = hashOf([tenant])
  if (prompt.kind === "tokens") {
    const prefix = new PrefixHasher(KEY_TOKENS).push([salt, ...prompt.tokens.slice(0, MOST_UNITS)])
    return { session: numberOf(tenant, session), promptTokens: prompt.tokens.length, prefix }
  }
  const parts = textsOf(prompt)
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  const values = [salt]
  let units = 0
  for (const part of parts) {
    // Templates begin each message afresh: a key never ends within two of them.
    for (let at = 0; at < part.length && units < MOST_UNITS; at += UNITS_PER_TOKEN) {
      values.push(valueAt(part, at))
      units += UNITS_PER_TOKEN
    }
  }
  return {
    session: numberOf(tenant, session),
    promptTokens: Math.max(1, Math.ceil(length / UNITS_PER_TOKEN)),
    prefix: new PrefixHasher(KEY_TOKENS).push(values),
  }
}

/** In the order in which templates have them. */
function textsOf(prompt: Exclude<Prompt, { kind: "tokens" }>): string[] {
  if (prompt.kind === "text") return [prompt.text]
  const tools = prompt.tools === null ? [] : [JSON.stringify(prompt.tools)]
  return [
    ...tools,
    ...prompt.messages.map((message) => `${message.role}\n${message.content ?? ""}${callsOf(message)}`),
  ]
}

function callsOf({ tool_calls: calls }: { tool_calls?: unknown[] }): string {
  return calls === undefined ? "" : JSON.stringify(calls)
}

/** Four UTF-16 units as one 32-bit value; what is past the end counts as nothing. */
function valueAt(text: string, at: number): number {
  let value = 0
  for (let i = at; i < at + UNITS_PER_TOKEN; i++)
    value = (Math.imul(value, 0x01000193) ^ (i < text.length ? text.charCodeAt(i) : 0)) | 0
  return value
}

function hashOf(texts: readonly string[]): number {
  let value = 0x811c9dc5
  for (const text of texts)
    for (let i = 0; i <= text.length; i++)
      value = Math.imul(value ^ (i < text.length ? text.charCodeAt(i) : 0xffff), 0x01000193) | 0
  return value
}

/** Of a tenant's session; -1: none. */
function numberOf(tenant: string, session: string | null): number {
  if (session === null) return -1
  return (hashOf([tenant, session]) >>> 0) * 2 ** 20 + (hashOf([session, tenant]) >>> 12)
}
