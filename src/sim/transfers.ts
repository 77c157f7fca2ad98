/** KV on its way from prefill to decode replicas (DistServe): first come, first served, held back while no decode
 * replica has room for it; its prefill replica keeps the KV until it has landed. Links are not shared. */
import type { Progress, RequestId, RequestSpec } from "../core/protocol.ts"
import type { Machine } from "./machine.ts"
import type { Play } from "./world.ts"

export interface Transfer {
  play: Play
  progress: Progress
  from: Machine
  /** Null while it waits for room. */
  to: Machine | null
  readySinceUs: number
  /** Cancelled, or one of its ends was lost. */
  void: boolean
}

/** Decode replicas asked for a promise. */
const MOST_ASKED = 3

export class Transfers {
  #decoders: readonly Machine[]
  #waiting: Transfer[] = []
  #underWay = new Set<Transfer>()
  /** Which decode replica promised which request, until its KV is on the way. */
  #promises = new Map<RequestId, { by: Machine; tokens: number }>()
  /** By decode replica: KV that it promised to requests that are not on their way yet. */
  #promisedTokens = new Map<Machine, number>()
  started = 0
  /** Summed over transfers: from the hand-off to the moment a decode replica had room. */
  waitedUs = 0

  constructor(decoders: readonly Machine[]) {
    this.#decoders = decoders
  }

  /** A decode replica promises the decodes of a request whose prompt is computed elsewhere: the one with the most room, or
   * one of the next. */
  promise(spec: RequestSpec, nowUs: number): boolean {
    this.forget(spec.id)
    const taker = this.#byRoom(nowUs)
      .slice(0, MOST_ASKED)
      .find(({ replica }) => replica.offer(spec, nowUs, undefined, true))
    if (taker === undefined) return false
    this.#promises.set(spec.id, { by: taker, tokens: spec.promptTokens })
    this.#promisedTokens.set(taker, this.#promisedBy(taker) + spec.promptTokens)
    return true
  }

  /** The request ended, or went on its way: no room is kept for it. */
  forget(id: RequestId): void {
    const promise = this.#promises.get(id)
    if (promise === undefined) return
    this.#promises.delete(id)
    this.#promisedTokens.set(promise.by, this.#promisedBy(promise.by) - promise.tokens)
  }

  #promisedBy(machine: Machine): number {
    return this.#promisedTokens.get(machine) ?? 0
  }

  enqueue(play: Play, progress: Progress, from: Machine, nowUs: number): void {
    play.at = -1
    this.#waiting.push({ play, progress, from, to: null, readySinceUs: nowUs, void: false })
  }

  /** Begin what has room, in order. */
  begin(nowUs: number): Transfer[] {
    const begun: Transfer[] = []
    while (this.#waiting.length > 0) {
      const transfer = this.#waiting[0]!
      const to = this.#roomFor(transfer, nowUs)
      if (to === null) break
      this.#waiting.shift()
      transfer.to = to
      this.#underWay.add(transfer)
      this.started++
      this.waitedUs += nowUs - transfer.readySinceUs
      begun.push(transfer)
    }
    return begun
  }

  landed(transfer: Transfer): void {
    this.#underWay.delete(transfer)
  }

  /** Stop moving `play`; null if it is not being moved. Reserved room is given back. */
  cancel(play: Play): Transfer | null {
    const transfer = this.#all().find((other) => other.play === play)
    if (transfer === undefined) return null
    this.#drop(transfer)
    return transfer
  }

  /** A replica is lost. Transfers to it wait for another; those from it are returned: their KV is gone. */
  lost(machine: Machine): Transfer[] {
    const bereft = this.#all().filter(({ from }) => from === machine)
    for (const transfer of bereft) this.#drop(transfer)
    const again = this.#all().filter(({ to }) => to === machine)
    for (const transfer of again) {
      transfer.void = true
      this.#underWay.delete(transfer)
    }
    this.#waiting.unshift(...again.map((transfer) => ({ ...transfer, to: null, void: false })))
    return bereft
  }

  #all(): Transfer[] {
    return [...this.#underWay, ...this.#waiting]
  }

  #drop(transfer: Transfer): void {
    transfer.void = true
    this.#waiting = this.#waiting.filter((other) => other !== transfer)
    this.#underWay.delete(transfer)
    if (transfer.to !== null && !transfer.to.lost) {
      transfer.to.replica.release(transfer.play.request.spec.id)
      transfer.to.touched = true
    }
  }

  /** The decode replica that promised it, or the one with the most free KV, that has room for it. */
  #roomFor({ play, progress }: Transfer, nowUs: number): Machine | null {
    const { id, promptTokens } = play.request.spec
    const by = this.#promises.get(id)?.by
    const first = by === undefined || by.lost ? [] : [by]
    for (const machine of [...first, ...this.#byRoom(nowUs)]) {
      if (!machine.replica.reserve(id, promptTokens + progress.output - 1)) continue
      this.forget(id)
      return machine
    }
    return null
  }

  /** Living decode replicas, the one with the most free KV first. */
  #byRoom(nowUs: number): Machine[] {
    const free = (machine: Machine) => {
      const { kvCapacityTokens, kvUsedTokens, kvCachedTokens } = machine.replica.snapshot(nowUs)
      return kvCapacityTokens - kvUsedTokens + kvCachedTokens - this.#promisedBy(machine)
    }
    return this.#decoders
      .filter((machine) => !machine.lost)
      .map((machine) => ({ machine, free: free(machine) }))
      .sort((a, b) => b.free - a.free || a.machine.index - b.machine.index)
      .map(({ machine }) => machine)
  }
}
