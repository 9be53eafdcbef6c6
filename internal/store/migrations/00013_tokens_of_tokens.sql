-- +goose Up
-- The token that one was made with, and ends with; 0 for none.
ALTER TABLE access_tokens ADD COLUMN made_with BIGINT NOT NULL DEFAULT 0;
CREATE INDEX access_tokens_by_maker ON access_tokens (made_with);
