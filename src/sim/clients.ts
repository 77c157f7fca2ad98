/** The clients of a simulated gateway: each sees one stream, and what must be true of it. */
import { assert } from "../core/assert.ts"
import type { RequestId } from "../core/protocol.ts"
import type { SeenStep } from "../core/seen.ts"
import type { FailReason, JobId } from "../router/dispatch.ts"
import type { SimRequest } from "./world.ts"

export type ClientEnd = "finished" | "failed" | "cancelled" | "gatewayLost" | FailReason

export interface Client {
  request: SimRequest
  /** Steps of its answer so far. */
  steps: SeenStep[]
  tokens: number
  end: ClientEnd | null
  endUs: number
  /** It came. */
  arrived: boolean
  /** The job that it is at; null while it is at none. And the replica of that. */
  open: JobId | null
  openAt: number
  /** Times it was submitted. */
  submissions: number
  /** The pause that a loss made, µs: from losing its replica to the next token. */
  lostAtUs: number
  longestRecoveryUs: number
}

export class Clients {
  readonly all = new Map<RequestId, Client>()
  readonly #byJob = new Map<JobId, Client>()
  live = 0

  enter(request: SimRequest): Client {
    const client: Client = {
      ...{ request, steps: [], tokens: 0, end: null, endUs: -1, submissions: 0 },
      ...{ arrived: false, open: null, openAt: -1 },
      ...{ lostAtUs: -1, longestRecoveryUs: 0 },
    }
    assert(!this.all.has(request.spec.id), `request ${request.spec.id} came twice`)
    this.all.set(request.spec.id, client)
    return client
  }

  arrived(client: Client): void {
    client.arrived = true
    this.live++
  }

  of(id: RequestId): Client {
    return this.all.get(id)!
  }
  /** Undefined for a job that its request has left. */
  at(job: JobId): Client | undefined {
    const client = this.#byJob.get(job)
    return client?.open === job ? client : undefined
  }

  /** Those whose request is at the replica, or on its way there. */
  openAt(replica: number): Client[] {
    return [...this.#byJob.values()].filter(({ openAt }) => openAt === replica)
  }

  opened(id: RequestId, job: JobId, replica: number): Client {
    const client = this.of(id)
    assert(client.end === null, `request ${id} is submitted, but over`)
    assert(client.open === null, `request ${id} is submitted as job ${job} while job ${client.open} has it`)
    client.open = job
    client.openAt = replica
    client.submissions++
    this.#byJob.set(job, client)
    return client
  }

  left(client: Client): void {
    if (client.open !== null) this.#byJob.delete(client.open)
    client.open = null
  }

  lost(client: Client, nowUs: number): void {
    this.left(client)
    if (client.lostAtUs < 0) client.lostAtUs = nowUs
  }

  /** Tokens of its answer: the next ones, or some were lost or came twice. */
  tokens(client: Client, from: number, tokens: number, answeringFrom: number, nowUs: number): void {
    const { id } = client.request.spec
    assert(client.end === null, `request ${id} gets tokens after its end`)
    assert(from === client.tokens, `request ${id} has ${client.tokens} tokens and gets those from ${from} on`)
    client.tokens += tokens
    client.steps.push({ atUs: nowUs, tokens, answeringFrom })
    if (client.lostAtUs >= 0)
      client.longestRecoveryUs = Math.max(client.longestRecoveryUs, nowUs - client.lostAtUs)
    client.lostAtUs = -1
  }

  ended(client: Client, end: ClientEnd, nowUs: number): void {
    const { spec, outputTokens, cancelAtUs } = client.request
    assert(client.end === null, `request ${spec.id} ends twice: ${client.end}, then ${end}`)
    assert(
      end !== "finished" || client.tokens === outputTokens,
      `request ${spec.id} ends with tokens missing`,
    )
    assert(end !== "cancelled" || cancelAtUs !== undefined, `request ${spec.id} was never cancelled`)
    client.end = end
    client.endUs = nowUs
    this.left(client)
    this.live--
  }
}
