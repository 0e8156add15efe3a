-- Names of accounts, in order: a page after $2 (null: from the first), of those whose name or display name has $1 in it (null: all). $3: limit.
select id from account
where id > coalesce($2, '') and ($1::text is null or strpos(lower(id), lower($1)) > 0 or strpos(lower(display_name), lower($1)) > 0)
order by id
limit $3
