Feature: Fixed and checked steps
  A fixed step asks nobody, and a reasoning step may be checked by a second agent.

  Scenario: A fixed step that asks an agent is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - add:
        metadata: {gateway: {kind: deterministic}}
        do:
        - ask:
            call: gateway.agent
            with: {agent: sales, input: x}
            metadata: {gateway: {kind: ai}}
            input: {schema: {document: {}}}
            output: {schema: {document: {}}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/add/do/0/ask'

  Scenario: A computation
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - total:
        call: gateway.compute
        with: {code: price * count, inputs: {price: '${ .price }', count: 2}}
    """
    And given the workflow input is:
    """yaml
    price: 19.99
    """
    And given the answers of steps are:
    """yaml
    total: {output: '39.98'}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    '39.98'
    """
    And total should call gateway.compute with:
    """yaml
    code: price * count
    inputs: {price: 19.99, count: 2}
    """

  Scenario: A second agent agrees
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai, check: {agent: audit}}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: 5}
    agent: {output: {agrees: true}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    5
    """

  Scenario: A person rejects what a second agent doubts
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai, check: {agent: audit}}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: 5}
    agent: {output: {agrees: false, reason: too cheap}}
    check: {output: reject}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:interlock:error:check-failed
    instance: /do/0/ask
    """

  Scenario: A request by HTTP
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - pet: {call: http, with: {method: get, endpoint: 'interlock://tools/pets/pet/{petId}', query: {full: '${ .full }'}}}
    """
    And given the workflow input is:
    """yaml
    petId: 4
    full: true
    """
    And given the answers of steps are:
    """yaml
    pet: {output: {id: 4}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    id: 4
    """
    And pet should call http with:
    """yaml
    method: get
    uri: interlock://tools/pets/pet/4
    query: {full: true}
    """
