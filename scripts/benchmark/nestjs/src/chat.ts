import { Controller, Get, Inject, Injectable, MessageEvent, Param, Sse, UseGuards } from '@nestjs/common';
import { ConfigService } from '@nestjs/config';
import { Db } from 'mongodb';
import OpenAI from 'openai';
import { Observable, concat, from, of, switchMap } from 'rxjs';
import { JwtAuthGuard } from './auth.js';

@Injectable()
export class ChatService {
  constructor(@Inject('DATABASE') private readonly database: Db) {}

  async latestMessage(conversationId: string): Promise<string> {
    const newest = { sort: { createdAt: -1 } } as const;
    const message = await this.database.collection('messages').findOne({ conversationId, role: 'user' }, newest);
    return message?.content || '';
  }

  async save(conversationId: string, role: string, content: string) {
    const message = { conversationId, role, content, createdAt: new Date() };
    await this.database.collection('messages').insertOne(message);
  }

  recommendation(content: string) {
    return /bet|odds/.test(content) ? { betId: `bet-${Date.now()}`, odds: 2.5 } : null;
  }
}

@Injectable()
export class LLMService {
  private readonly openai: OpenAI;

  constructor(private readonly config: ConfigService) {
    this.openai = new OpenAI({ apiKey: config.get('OPENAI_API_KEY'), baseURL: config.get('OPENAI_BASE_URL') });
  }

  async *stream(question: string): AsyncGenerator<string> {
    const stream = await this.openai.chat.completions.create({
      model: this.config.get('OPENAI_MODEL') ?? 'gpt-4',
      messages: [
        { role: 'system', content: 'You are a helpful sports betting assistant.' },
        { role: 'user', content: question },
      ],
      stream: true,
    });
    for await (const chunk of stream) {
      const content = chunk.choices[0]?.delta?.content;
      if (content) yield content;
    }
  }
}

function event(type: string, fields: Record<string, unknown> = {}): MessageEvent {
  return { data: JSON.stringify({ type, timestamp: new Date().toISOString(), ...fields }) };
}

@Controller('api/v1/chat/conversations')
export class ChatController {
  constructor(
    private readonly chat: ChatService,
    private readonly llm: LLMService,
  ) {}

  @Get(':conversationId/stream')
  @Sse()
  @UseGuards(JwtAuthGuard)
  stream(@Param('conversationId') conversationId: string): Observable<MessageEvent> {
    const question = from(this.chat.latestMessage(conversationId));
    return concat(of(event('connected')), question.pipe(switchMap((text) => this.answer(conversationId, text))));
  }

  private async *answer(conversationId: string, question: string): AsyncGenerator<MessageEvent> {
    try {
      let whole = '';
      for await (const content of this.llm.stream(question)) {
        whole += content;
        yield event('llm_chunk', { content });
      }
      yield event('llm_complete', { content: whole });
      await this.chat.save(conversationId, 'assistant', whole);
      const metadata = this.chat.recommendation(whole);
      if (metadata) yield event('system', { message: 'New bet recommendation available', metadata });
    } catch (error: any) {
      yield event('error', { message: 'Failed to generate response', error: error.message });
    }
  }
}

@Controller('health')
export class HealthController {
  @Get()
  health() {
    return 'ok';
  }
}
