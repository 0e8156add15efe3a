using System.Net;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace Tensormesh.Web;

/// <summary>The OpenAPI document, and a page on which the API can be tried. Both answer to anyone: they tell of no account.</summary>
internal static class ApiDescription
{
    public const string DocumentPath = "/openapi/v1.json";
    public const string PagePath = "/docs";
    private const string Scheme = "bearer";

    /// <summary>The page's own scripts and styles, this server's answers, and nothing from elsewhere.</summary>
    private const string ContentSecurityPolicy =
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
            + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// <summary>What any route may answer that asks who calls.</summary>
    private static readonly int[] Always = [400, 401, 403, 429, 500, 503];

    /// <summary>What a route with a body may answer as well.</summary>
    private static readonly int[] WithBody = [413, 415];

    public static IServiceCollection AddApiDescription(this IServiceCollection services) => services.AddOpenApi(options =>
    {
        options.AddDocumentTransformer(DescribeAsync);
        options.AddOperationTransformer(DescribeAsync);
    });

    public static void UseApiPage(this WebApplication web)
    {
        web.UseWhen(context => context.Request.Path.StartsWithSegments(PagePath), page => page.Use(next => context =>
        {
            context.Response.Headers.ContentSecurityPolicy = ContentSecurityPolicy;
            return next(context);
        }));
        web.UseSwaggerUI(page =>
        {
            page.RoutePrefix = PagePath.TrimStart('/');
            page.SwaggerEndpoint(DocumentPath, "Tensormesh billing");
            page.DocumentTitle = "Tensormesh billing API";
            page.EnablePersistAuthorization();
        });
    }

    public static void MapApiDescription(this WebApplication web) => web.MapOpenApi(DocumentPath).AllowAnonymous().ExcludeFromDescription();

    /// <summary>Problems that a route answers besides those that every route may.</summary>
    public static TBuilder Refusing<TBuilder>(this TBuilder routes, params int[] statuses) where TBuilder : IEndpointConventionBuilder
        => routes.WithMetadata(new Refuses(statuses));

    /// <summary>The route reads <see cref="IdempotencyKey"/>.</summary>
    public static TBuilder TakingIdempotencyKey<TBuilder>(this TBuilder routes) where TBuilder : IEndpointConventionBuilder
        => routes.Refusing(409).WithMetadata(new TakesIdempotencyKey());

    private sealed record Refuses(int[] Statuses);

    private sealed record TakesIdempotencyKey;

    private static Task DescribeAsync(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellation)
    {
        document.Info.Title = "Tensormesh billing";
        document.Info.Description = "Balances, cards, top-ups, transactions, statements and usage of prepaid accounts. Money is "
            + "{currencyCode, units, nanos}; lists page by pageToken; errors are RFC 9457 problems.";
        document.Servers = [];
        document.Components ??= new OpenApiComponents();
        document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
        {
            [Scheme] = new OpenApiSecurityScheme
            {
                Type = SecuritySchemeType.Http,
                Scheme = Scheme,
                Description = "A token of your sign-in, or an API key (ak-...).",
            },
        };
        return Task.CompletedTask;
    }

    private static async Task DescribeAsync(OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellation)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        operation.Responses ??= [];
        var problem = await context.GetOrCreateSchemaAsync(typeof(ProblemJson), null, cancellation);
        context.Document!.AddComponent(nameof(ProblemJson), problem);
        var isOpen = metadata.OfType<IAllowAnonymous>().Any();
        foreach (var status in (isOpen ? [] : Always).Concat(operation.RequestBody is null ? [] : WithBody)
            .Concat(metadata.OfType<Refuses>().SelectMany(each => each.Statuses)).Distinct().Order())
        {
            operation.Responses[status.ToString(System.Globalization.CultureInfo.InvariantCulture)] = new OpenApiResponse
            {
                Description = ((HttpStatusCode)status).ToString(),
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    [Problem.ContentType] = new() { Schema = new OpenApiSchemaReference(nameof(ProblemJson), context.Document) },
                },
            };
        }

        if (!isOpen) operation.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(Scheme, context.Document)] = [] }];
        if (!metadata.OfType<TakesIdempotencyKey>().Any()) return;
        operation.Parameters ??= [];
        operation.Parameters.Add(new OpenApiParameter
        {
            Name = IdempotencyKey.Header,
            In = ParameterLocation.Header,
            Description = $"The same key with the same body is done once, however often it is sent. 1 to {IdempotencyKey.Longest} visible ASCII characters.",
            Schema = new OpenApiSchema { Type = JsonSchemaType.String, MinLength = 1, MaxLength = IdempotencyKey.Longest },
        });
    }
}

/// <summary>What every error is (RFC 9457).</summary>
/// <param name="Type"><c>urn:tensormesh:problem:</c> and its kind: for programs.</param>
/// <param name="Detail">What is wrong and what to do: for people.</param>
/// <param name="Field">The field, parameter or header at fault.</param>
internal sealed record ProblemJson(string Type, string Title, int Status, string Detail, string Instance, string TraceId)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Field { get; init; }

    /// <summary>Why usage was rejected: as in the results of a batch.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Reason { get; init; }

    /// <summary>Of a balance that is used up, in dollars; below zero: owed.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Remaining { get; init; }
}
