using System.Text.Json;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Who did what: ours, for the platform's own people.</summary>
internal static class AuditApi
{
    private const string ActionPrefix = "AUDIT_ACTION";

    public static void MapAuditApi(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/v1/admin/audit", ListAsync).Needing(Permission.Administer).WithTags("admin").Produces<AuditAnswer>();

    /// <summary>Newest first.</summary>
    private static async Task<IResult> ListAsync(
        string? targetUserId, string? actor, string? action, string? pageSize, string? pageToken, Caller caller, AuditLog audit,
        CancellationToken cancellation)
    {
        if (!Wire.TryReadPageSize(pageSize, out var size, out var refusal)) return refusal;
        var actions = Enum.GetValues<AuditAction>().Where(each => NameOf(each) == action).ToArray();
        if (!string.IsNullOrEmpty(action) && actions.Length == 0)
        {
            return Problem.Invalid("action",
                $"'{action}' is no audited action: use one of {string.Join(", ", Enum.GetValues<AuditAction>().Select(NameOf))}, or leave it out.");
        }

        if ((targetUserId ?? "").Contains('\0') || (actor ?? "").Contains('\0')) return TypedResults.Ok(new AuditAnswer([], ""));
        var query = $"audit/{targetUserId?.Length}/{targetUserId}/{actor}/{action}";
        if (!PageToken.TryRead(pageToken, caller.Account, query, out var before)) return Problem.BadPageToken();
        var filter = new AuditFilter(
            string.IsNullOrEmpty(targetUserId) ? null : new AccountId(targetUserId), string.IsNullOrEmpty(actor) ? null : actor,
            actions.Length == 0 ? null : actions[0]);
        var rows = await audit.ListAsync(filter, before, size + 1, cancellation);
        var page = rows.Take(size).ToArray();
        return TypedResults.Ok(new AuditAnswer(
            [.. page.Select(AuditEventJson.From)], rows.Count > size ? PageToken.Write(page[^1].Position, caller.Account, query) : ""));
    }

    internal static string NameOf(AuditAction action) => Wire.EnumName(ActionPrefix, action.ToString());
}

/// <param name="NextPageToken">Empty on the last page.</param>
internal sealed record AuditAnswer(IReadOnlyList<AuditEventJson> Events, string NextPageToken);

/// <param name="Actor">The person, or the API key.</param>
/// <param name="TargetUserId">The account that it was about.</param>
/// <param name="Resource">What it was done to: a ledger transaction, a card, a key; empty where the account says it.</param>
/// <param name="Details">An object; its members depend on the action.</param>
internal sealed record AuditEventJson(
    string EventId, DateTime CreatedAt, string Action, string Actor, string ActorRole, string TargetUserId, string Resource, string TraceId, JsonElement Details)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? ApiKeyId { get; init; }

    public static AuditEventJson From(AuditEvent told) => new(
        FormattableString.Invariant($"aud_{told.Position}"), told.CreatedAt.UtcDateTime, AuditApi.NameOf(told.Action), told.By.Subject,
        $"USER_ROLE_{told.By.Role}", told.Account.Value, told.Resource ?? "", told.By.TraceId ?? "", JsonElement.Parse(told.Details))
    {
        ApiKeyId = told.By.ApiKeyId,
    };
}
