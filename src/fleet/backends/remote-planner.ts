/** The planner of a vLLM (`slos-serve planner`), asked in place of a twin: it has all that the engine has, and promises to the
 * token. It reads no prompts, so it is asked with sizes alone. */
import type { Digest, Job, Offer } from "../../replica/host.ts"
import { RemoteReplica, type RemoteReplicaOptions } from "../remote-replica.ts"

export class RemotePlanner {
  readonly #replica: RemoteReplica

  constructor(options: RemoteReplicaOptions) {
    this.#replica = new RemoteReplica(options)
  }

  /** It is there, and so is its engine. */
  get ready(): boolean {
    return this.#replica.state === "ready"
  }
  /** Why it is not. */
  get detail(): string {
    return this.#replica.detail
  }

  /** `promptTokens`: those that the engine must compute, as far as is known. */
  offer({ body: _, generation, ...job }: Job, promptTokens: number, deadlineMs: number): Promise<Offer> {
    const unread = { ...generation, prompt: { kind: "tokens" as const, tokens: [] } }
    return this.#replica.offer({ ...job, generation: unread, promptTokens }, deadlineMs)
  }

  digest(): Digest | null {
    return this.ready ? this.#replica.digest() : null
  }

  close(): Promise<void> {
    return this.#replica.close()
  }
}
