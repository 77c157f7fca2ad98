/** Which of llama.cpp's sequences ("slots") holds which request's KV. The lowest free slot is used first,
 * because gaps between slot numbers split a batch into more passes. */
import type { Batch, RequestId } from "../../core/protocol.ts"
import { firstDifference, type OpenRequest, type RequestTable } from "../request-table.ts"
import type { Native, Pointer } from "./native.ts"

const TO_THE_END = -1

export class Slots {
  readonly #native: Native
  readonly #memories: readonly Pointer[]
  readonly #unified: boolean
  readonly #table: RequestTable
  readonly #owner: (RequestId | null)[]
  readonly #slotOf = new Map<RequestId, number>()

  /** `memories`: of the target's context, and of the draft model's where there is one. */
  constructor(native: Native, memories: readonly Pointer[], table: RequestTable) {
    this.#native = native
    this.#memories = memories
    this.#table = table
    this.#unified = table.limits.unifiedKv
    this.#owner = new Array(table.limits.maxSequences + (table.limits.cachedSequences ?? 0)).fill(null)
  }

  slot(id: RequestId): number {
    return this.#slotOf.get(id)!
  }

  /** Copies, evictions, releases, trims and truncations of a checked batch; then every item has a slot and holds
   * exactly `position` tokens. Answers why it could not: then only those that were to leave have left. */
  prepare(batch: Batch): string | null {
    const copies = batch.items.flatMap(({ id, copy }) => {
      const to = this.#table.get(id)
      return copy && to.held < copy.tokens
        ? [{ to, from: this.#table.get(copy.from), tokens: copy.tokens }]
        : []
    })
    const leaving = new Set([...batch.evict, ...batch.release])
    for (const { to, from, tokens } of copies) {
      const at = firstDifference(from, to, tokens)
      if (at < 0) continue
      for (const id of leaving) this.drop(this.#table.get(id))
      for (const id of batch.release) this.#table.delete(id)
      return `requests ${from.id} and ${to.id} do not share ${tokens} tokens: they differ at ${at}`
    }
    /** The last copy of a leaving source takes its slot as it is. */
    const heir = new Map<RequestId, OpenRequest>()
    for (const { to, from } of copies) {
      this.drop(to)
      leaving.delete(to.id)
      if (leaving.has(from.id)) heir.set(from.id, to)
    }
    for (const id of leaving) if (!heir.has(id)) this.drop(this.#table.get(id))
    for (const { to, from, tokens } of copies) if (heir.get(from.id) !== to) this.#copy(from, to, tokens)
    for (const [id, to] of heir) this.#takeOver(this.#table.get(id), to)
    for (const id of batch.release) this.#table.delete(id)
    for (const { id, tokens } of batch.trim ?? []) this.truncate(this.#table.get(id), tokens)
    for (const { id, position } of batch.items) {
      const request = this.#table.get(id)
      if (request.held > position) this.truncate(request, position)
      if (!this.#slotOf.has(id)) this.#assign(id, this.#lowestFree())
    }
    return null
  }

  /** Forgets KV from `tokens` on; the slot stays with the request. */
  truncate(request: OpenRequest, tokens: number): void {
    const slot = this.#slotOf.get(request.id)
    if (slot !== undefined && !this.#remove(slot, tokens)) {
      throw new Error(`llama.cpp cannot shorten sequence ${slot} to ${tokens} tokens`)
    }
    request.held = Math.min(request.held, tokens)
    request.draftHeld = Math.min(request.draftHeld, tokens)
  }

  /** Forgets all KV and frees the slot. */
  drop(request: OpenRequest): void {
    const slot = this.#slotOf.get(request.id)
    if (slot === undefined) return
    this.#remove(slot, 0)
    this.#owner[slot] = null
    this.#slotOf.delete(request.id)
    request.held = 0
    request.draftHeld = 0
  }

  #copy(from: OpenRequest, to: OpenRequest, tokens: number): void {
    const source = this.slot(from.id)
    const target = this.#lowestFree()
    this.#assign(to.id, target)
    // Between streams llama.cpp copies whole sequences only (at the next decode); the tail goes again.
    const end = this.#unified ? tokens : TO_THE_END
    for (const memory of this.#memories) this.#native.copyKv(memory, source, target, 0, end)
    if (!this.#unified) this.#remove(target, tokens)
    to.held = tokens
    to.draftHeld = Math.min(from.draftHeld, tokens)
  }

  #takeOver(from: OpenRequest, to: OpenRequest): void {
    const slot = this.slot(from.id)
    this.#slotOf.delete(from.id)
    this.#assign(to.id, slot)
    to.held = from.held
    to.draftHeld = from.draftHeld
    from.held = 0
    from.draftHeld = 0
  }

  #remove(slot: number, from: number): boolean {
    return this.#memories.every((memory) => this.#native.removeKv(memory, slot, from, TO_THE_END))
  }

  #assign(id: RequestId, slot: number): void {
    this.#owner[slot] = id
    this.#slotOf.set(id, slot)
  }

  #lowestFree(): number {
    const slot = this.#owner.indexOf(null)
    if (slot < 0) throw new Error("no slot is free, though the batch was checked")
    return slot
  }
}
