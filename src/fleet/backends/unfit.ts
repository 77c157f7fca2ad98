/** What an engine behind a gateway cannot do, whatever its kind: its client is told so. */
import { UserError, userError } from "../../errors.ts"
import type { Job, JobSink } from "../../replica/host.ts"
import { apiOf } from "./ask.ts"
import { unknownForm } from "./form.ts"
import type { BackendKind } from "./kind.ts"

/** null: it can be asked. */
export function unfitFor(job: Job, kind: BackendKind): UserError | null {
  const { sampling, maxTokens, badWords } = job.generation
  const { name } = kind
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
  if (badWords && !kind.takesBadWords)
    return wrong("bad_words", "which cannot be kept from words: ban single tokens with logit_bias, at -100")
  const form = unknownForm(job.body, kind, apiOf(job))
  if (form !== null)
    return wrong(form, "which cannot hold a text to that: ask for JSON that fits a schema (response_format)")
  return null
}

/** Ends a job that the engine cannot do, with the reason. False: it can. */
export function endUnfit(job: Job, kind: BackendKind, sink: JobSink): boolean {
  const error = unfitFor(job, kind)
  if (error !== null) for (const { index } of job.choices) sink.end(index, { kind: "failed", error })
  return error !== null
}
