import { applyDecorators } from '@nestjs/common';
import {
  ApiExtraModels,
  ApiProperty,
  ApiPropertyOptional,
  ApiResponse,
  getSchemaPath,
} from '@nestjs/swagger';
import { ERROR_CODES, type ErrorCode } from './api-error';

class FieldProblem {
  @ApiProperty({ example: 'phoneNumber' })
  field!: string;

  @ApiProperty({ example: 'phoneNumber must be an Indian mobile number in E.164 form: +91 and ten digits' })
  message!: string;
}

/** The error body in the OpenAPI document (RFC 9457). */
class Problem {
  @ApiProperty({ format: 'uri-reference', example: 'urn:otp-login:otp_incorrect' })
  type!: string;

  @ApiProperty({ example: 'The code is wrong' })
  title!: string;

  @ApiProperty({ type: 'integer', example: 400 })
  status!: number;

  @ApiProperty({
    enum: Object.keys(ERROR_CODES),
    description: 'A closed set: decide by it.',
    example: 'otp_incorrect',
  })
  code!: ErrorCode;

  @ApiProperty({ description: 'One sentence for a developer.', example: 'The code is wrong' })
  detail!: string;

  @ApiPropertyOptional({ type: 'integer', example: 2 })
  attemptsLeft?: number;

  @ApiPropertyOptional({ type: 'integer', description: 'As in the Retry-After header.', example: 30 })
  retryAfterSeconds?: number;

  @ApiPropertyOptional({ type: [FieldProblem] })
  errors?: FieldProblem[];
}

/** What every 429 and 503 says, in the OpenAPI document. */
export const RETRY_AFTER = {
  'Retry-After': {
    description: 'Seconds until it is worth trying again.',
    schema: { type: 'integer' as const, minimum: 1 },
  },
};

/** Documents the errors that an operation answers, grouped by status. */
export function ApiProblems(...codes: ErrorCode[]): MethodDecorator {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of codes) {
    const { status } = ERROR_CODES[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const responses = [...byStatus].map(([status, group]) =>
    ApiResponse({
      status,
      description: group.map((code) => `\`${code}\`: ${ERROR_CODES[code].title}.`).join(' '),
      content: { 'application/problem+json': { schema: { $ref: getSchemaPath(Problem) } } },
      ...(status === 429 || status === 503 ? { headers: RETRY_AFTER } : {}),
    }),
  );
  return applyDecorators(ApiExtraModels(Problem), ...responses);
}
