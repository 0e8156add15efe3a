using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Resources.Tests;

/// <summary>The part of the Common Expression Language that our CRDs' rules use; anything else throws.</summary>
/// <remarks>
/// Values are bool, long, string, JsonObject and JsonArray. A field that is absent throws, as in CEL, unless <c>has</c> asks for it;
/// the right side of || and &amp;&amp; is not looked at where the left decides.
/// </remarks>
internal sealed partial class Cel
{
    private readonly string[] _tokens;
    private int _next;

    private Cel(string expression)
    {
        _tokens = [.. Token().Matches(expression).Select(match => match.Value)];
        if (!string.IsNullOrWhiteSpace(Token().Replace(expression, "")))
        {
            throw new NotSupportedException($"this is beyond the CEL known here: {expression}");
        }
    }

    private delegate object Term(IReadOnlyDictionary<string, object> variables);

    public static bool IsTrue(string expression, JsonNode self, JsonNode? oldSelf)
    {
        var parser = new Cel(expression);
        var term = parser.Or();
        if (parser._next != parser._tokens.Length)
        {
            throw new NotSupportedException($"unexpected {parser._tokens[parser._next]} in {expression}");
        }

        var variables = new Dictionary<string, object> { ["self"] = Value(self) };
        if (oldSelf is not null)
        {
            variables["oldSelf"] = Value(oldSelf);
        }

        return (bool)term(variables);
    }

    private Term Or()
    {
        var left = And();
        while (Takes("||"))
        {
            var (first, second) = (left, And());
            left = variables => (bool)first(variables) || (bool)second(variables);
        }

        return left;
    }

    private Term And()
    {
        var left = Comparison();
        while (Takes("&&"))
        {
            var (first, second) = (left, Comparison());
            left = variables => (bool)first(variables) && (bool)second(variables);
        }

        return left;
    }

    private Term Comparison()
    {
        var left = Product();
        if (Takes("=="))
        {
            var right = Product();
            return variables => left(variables).Equals(right(variables));
        }

        if (Takes("<="))
        {
            var right = Product();
            return variables => (long)left(variables) <= (long)right(variables);
        }

        return left;
    }

    private Term Product()
    {
        var left = Unary();
        while (Takes("*"))
        {
            var (first, second) = (left, Unary());
            left = variables => checked((long)first(variables) * (long)second(variables));
        }

        return left;
    }

    private Term Unary()
    {
        if (Takes("!"))
        {
            var operand = Unary();
            return variables => !(bool)operand(variables);
        }

        var term = Primary();
        while (Takes("."))
        {
            var (target, member) = (term, Take());
            term = Takes("(") ? Call(target, member) : variables => Field(target(variables), member);
        }

        return term;
    }

    private Term Primary()
    {
        if (Takes("("))
        {
            var inner = Or();
            Expect(")");
            return inner;
        }

        var token = Take();
        if (token is "has" && Takes("("))
        {
            return Has();
        }

        if (token is "size" && Takes("("))
        {
            var sized = Or();
            Expect(")");
            return variables => (long)((string)sized(variables)).Length;
        }

        return token[0] switch
        {
            '\'' => _ => token[1..^1],
            >= '0' and <= '9' => _ => long.Parse(token, System.Globalization.CultureInfo.InvariantCulture),
            _ => variables => variables[token],
        };
    }

    /// <summary>has(a.b.c): whether a.b has a field c.</summary>
    private Term Has()
    {
        var path = new List<string> { Take() };
        while (Takes("."))
        {
            path.Add(Take());
        }

        Expect(")");
        return variables =>
        {
            var holder = path.Skip(1).SkipLast(1).Aggregate(variables[path[0]], Field);
            return ((JsonObject)holder)[path[^1]] is not null;
        };
    }

    private Term Call(Term target, string function)
    {
        if (function is "exists" or "all")
        {
            var name = Take();
            Expect(",");
            var condition = Or();
            Expect(")");
            bool Holds(IReadOnlyDictionary<string, object> variables, object item) =>
                (bool)condition(new Dictionary<string, object>(variables) { [name] = item });
            return function is "all"
                ? variables => Items(target(variables)).All(item => Holds(variables, item))
                : variables => Items(target(variables)).Any(item => Holds(variables, item));
        }

        var argument = Or();
        Expect(")");
        return function switch
        {
            "matches" => variables => Regex.IsMatch((string)target(variables), (string)argument(variables)),
            "startsWith" => variables => ((string)target(variables)).StartsWith((string)argument(variables), StringComparison.Ordinal),
            _ => throw new NotSupportedException($"CEL's {function} is not known here"),
        };
    }

    private static object Field(object holder, string name) =>
        Value(((JsonObject)holder)[name] ?? throw new KeyNotFoundException($"no such key: {name}"));

    private static IEnumerable<object> Items(object collection) => collection is JsonArray list
        ? list.Select(item => Value(item!))
        : ((JsonObject)collection).Select(field => field.Key);

    private static object Value(JsonNode node) => node.GetValueKind() switch
    {
        JsonValueKind.String => (object)(string)node!,
        JsonValueKind.Number => long.Parse(node.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture),
        JsonValueKind.True or JsonValueKind.False => (bool)node,
        _ => node,
    };

    private string Take() => _next < _tokens.Length ? _tokens[_next++] : throw new NotSupportedException("the expression ends early");

    private bool Takes(string token)
    {
        var found = _next < _tokens.Length && _tokens[_next] == token;
        _next += found ? 1 : 0;
        return found;
    }

    private void Expect(string token)
    {
        if (!Takes(token))
        {
            throw new NotSupportedException($"expected {token} at token {_next} of {string.Join(' ', _tokens)}");
        }
    }

    [GeneratedRegex(@"'[^']*'|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|\|\||&&|==|<=|[!*.,()]")]
    private static partial Regex Token();
}
