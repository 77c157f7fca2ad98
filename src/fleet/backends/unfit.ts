/** What an engine behind a gateway cannot do, whatever its kind: its client is told so. */
import { UserError, userError } from "../../errors.ts"
import type { Generation } from "../../replica/generation.ts"
import type { Job, JobSink } from "../../replica/host.ts"
import type { BackendKind } from "./kind.ts"

/** null: it can be asked. */
export function unfitFor({ sampling, maxTokens }: Generation, { name }: BackendKind): UserError | null {
  const wrong = (param: string, why: string) =>
    new UserError(`Invalid '${param}': the engine behind this gateway is a ${name}, ${why}.`, {
      ...{ code: "invalid_value", param },
    })
  if (sampling.embedding)
    return userError("not_supported_here", {
      what: "/v1/embeddings",
      why: `the engine behind this gateway is a ${name}, which is asked for answers alone`,
      instead: "Ask one that serves an embedding model itself.",
    })
  if (sampling.promptLogprobs)
    return wrong("echo", "whose log-probabilities of a prompt are not read here: leave out echo or logprobs")
  if (maxTokens === 0)
    return wrong("max_tokens", "which computes no prompt without an answer: ask for one token")
  return null
}

/** Ends a job that the engine cannot do, with the reason. False: it can. */
export function endUnfit(job: Job, kind: BackendKind, sink: JobSink): boolean {
  const error = unfitFor(job.generation, kind)
  if (error !== null) for (const { index } of job.choices) sink.end(index, { kind: "failed", error })
  return error !== null
}
