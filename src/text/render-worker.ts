/** Renders long prompts on a thread of its own: the loops of a template would keep the event loop from streams. */
import { parentPort, workerData } from "node:worker_threads"
import { type ControlToken, ControlTokens } from "../engine/control-tokens.ts"
import { UserError } from "../errors.ts"
import type { RenderAnswer, RenderJob } from "./renderer.ts"
import { ChatTemplate, type TemplateSource } from "./template.ts"

const { model, controls } = workerData as { model: TemplateSource; controls: readonly ControlToken[] }
const template = new ChatTemplate(model, new ControlTokens(controls))

parentPort!.on("message", ({ prompt, parseSpecial }: RenderJob) => {
  parentPort!.postMessage(answer(() => template.render(prompt, parseSpecial)))
})

function answer(render: () => ReturnType<ChatTemplate["render"]>): RenderAnswer {
  try {
    return { prompt: render() }
  } catch (error) {
    if (!(error instanceof UserError))
      return { failure: { message: String(error), status: 500, code: null, param: null } }
    const { message, status, code, param } = error
    return { failure: { message, status, code, param } }
  }
}
