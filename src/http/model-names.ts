/** Names a client may give as `model`: the model, the model with a class (`model:class`), and class aliases. */

import type { SloClass } from "../config/slo-classes.ts"
import { userError } from "../errors.ts"
import type { Service } from "../serve/service.ts"

export interface NamedModel {
  id: string
  class: SloClass | null
}

export function modelNames(service: Service): NamedModel[] {
  const { name } = service.front.model
  const classes = service.classes.all
  return [
    { id: name, class: null },
    ...classes.map((c) => ({ id: `${name}:${c.name}`, class: c })),
    ...classes.flatMap((c) => c.aliases.map((alias) => ({ id: alias, class: c }))),
  ]
}

/** The class that a model name selects, or null. No name, or an empty one, means the one model there is. */
export function classOfModel(service: Service, name: string | null | undefined): SloClass | null {
  if (!name || name === service.front.model.name) return null
  const found = modelNames(service).find((model) => model.id === name)
  if (found !== undefined) return found.class
  const model = name.slice(0, 100)
  throw userError("model_not_found", { model, available: service.front.model.name }, { param: "model" })
}
