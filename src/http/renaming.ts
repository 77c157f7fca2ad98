/** A request that was made into a chat is at fault in the words of its own fields. */
import { UserError } from "../errors.ts"

/** Does work whose errors name fields of a chat; `fields`: what the client called those. */
export async function inFieldsOf<T>(
  fields: Readonly<Record<string, string>>,
  work: () => T | Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw error instanceof UserError ? renamed(error, fields) : error
  }
}

/** The same error, of the client's field. Of a part of a field only the field is named: its parts are others there. */
export function renamed(error: UserError, fields: Readonly<Record<string, string>>): UserError {
  const { param } = error
  const field = param === null ? undefined : Object.keys(fields).find((name) => startsWithField(param, name))
  if (param === null || field === undefined) return error
  const own = fields[field]!
  const quoted = error.message.replace(`'${param}'`, `'${own}'`)
  // A name that is no ordinary word means the field wherever it stands.
  return new UserError(field.includes("_") ? quoted.replaceAll(field, own) : quoted, {
    ...{ status: error.status, code: error.code, type: error.type, retryMs: error.retryMs },
    ...{ param: own, cause: error },
  })
}

function startsWithField(param: string, name: string): boolean {
  return param === name || param.startsWith(`${name}.`) || param.startsWith(`${name}[`)
}
